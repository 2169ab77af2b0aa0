"""Proxies of OpenVPN's profiles: what becomes of them, and what is written back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.addresses import Endpoint
from bridged.cli.importing import import_file
from bridged.cli.materials import Materials
from bridged.configuration.load import parse
from bridged.errors import ConfigurationErrors
from bridged.profiles import (
    Material,
    Trust,
    parse_profile,
    read_file,
    render_yaml,
    serialize_tunnel,
    to_configuration,
)
from bridged.profiles.profile import ProxyLine
from bridged.protocol.role import Role
from bridged.runtime.tunnels.tunnel_credentials import plan_tunnel
from tests.lab.pki import static_key
from tests.unit.profiles.profile_texts import configured, read, refusals

TCP = "client\ndev tap\nremote hub.example.net 443 tcp-client\n"
NO_REMOTE = "client\ndev tap\n"
LOGIN = "<http-proxy-user-pass>\nalice\nsecret of alice\n</http-proxy-user-pass>\n"
PROXY = Endpoint("proxy.example.net", 3128)


def block(*lines: str) -> str:
    return "\n".join(("<connection>", *lines, "</connection>", ""))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("http-proxy proxy.example.net 3128", ProxyLine("http", PROXY)),
        ("http-proxy proxy.example.net 3128 stdin", ProxyLine("http", PROXY, None, True, True)),
        ("http-proxy proxy.example.net 3128 auto", ProxyLine("http", PROXY, None, False, True)),
        ("http-proxy proxy.example.net 3128 stdin none", ProxyLine("http", PROXY)),
        ("http-proxy 2001:db8::1 8080", ProxyLine("http", Endpoint("2001:db8::1", 8080))),
        ("socks-proxy proxy.example.net", ProxyLine("socks5", Endpoint("proxy.example.net", 1080))),
        (
            "socks-proxy 192.0.2.1 3128 stdin",
            ProxyLine("socks5", Endpoint("192.0.2.1", 3128), None, True, True),
        ),
    ],
)
def test_a_proxy_becomes_that_of_the_tunnel_and_is_written_back(line, expected):
    profile = read(line, base=TCP)
    assert profile.proxy == expected
    tunnel = configured(profile)
    assert tunnel.proxy.url == f"{expected.kind}://{expected.where}"
    assert tunnel.proxy.credentials_file == ("/x/hub.proxy" if expected.asks else None)
    written = [one for one in serialize_tunnel(profile, "x").splitlines() if "-proxy" in one]
    again = read("\n".join(written), base=TCP).proxy
    assert (again.kind, again.where, again.asks) == (expected.kind, expected.where, expected.asks)


@pytest.mark.parametrize("word", ["http-proxy proxy.example.net 3128", "socks-proxy proxy.example.net 3128"])
def test_the_file_of_a_proxy_s_password_is_named(word):
    proxy = read(f"{word} secret.txt", base=TCP).proxy
    assert proxy.login.path == "secret.txt" and not proxy.asks


@pytest.mark.parametrize("word", ["auto", "stdin", "[inline] basic", "other.txt basic"])
def test_a_password_in_the_profile_counts_wherever_it_stands(word):
    for text in (f"http-proxy p 1 {word}\n{LOGIN}", f"{LOGIN}http-proxy p 1 {word}"):
        proxy = read(text, base=TCP).proxy
        assert proxy.login.text == "alice\nsecret of alice\n"
        assert not configured(read(text, base=TCP)).proxy.credentials_file


def test_without_a_method_no_password_is_sent():
    assert read(f"http-proxy p 1\n{LOGIN}", base=TCP).proxy.login is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("http-proxy p 1 pass.txt ntlm", "NTLM is not supported"),
        ("http-proxy p 1 pass.txt ntlm2", "cntlm"),
        ("http-proxy p 1 pass.txt digest", "allow Basic at the proxy"),
        ("http-proxy p 1 auto-nct", "write `auto`"),
        ("http-proxy p 1 pass.txt kerberos", "write `basic`"),
        ("http-proxy p", "number"),
        ("http-proxy p 99999", "number"),
        ("http-proxy", "needs"),
        ("socks-proxy", "needs a host"),
        ("socks-proxy a_b!c", "not a host name"),
        ("http-proxy-option COLOUR green", "no option"),
        ("http-proxy p 1\nsocks-proxy q", "only one of"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_to_do(line, words):
    assert any(words in error.reason for error in refusals(line, base=TCP)), refusals(line, base=TCP)


def test_a_marker_needs_its_block():
    (error,) = refusals("http-proxy p 1 [inline] basic", base=TCP)
    assert "<http-proxy-user-pass>" in error.reason


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("http-proxy-option VERSION 1.0", "HTTP/1.1"),
        ("http-proxy-option AGENT Mozilla", "no name"),
        ("http-proxy-option CUSTOM-HEADER X-Site b", "is not sent"),
        ("http-proxy p 1 auto", "Basic only"),
        ("http-proxy-timeout 5", "10 seconds"),
    ],
)
def test_what_is_done_otherwise_is_said(line, words):
    assert any(words in notice.text for notice in read(line, base=TCP).notices)


@pytest.mark.parametrize("line", ["http-proxy-retry", "socks-proxy-retry"])
def test_a_client_tries_again_with_or_without_a_proxy(line):
    assert read(line, base=TCP).notices == []


def test_a_server_over_udp_is_not_called_past_the_proxy():
    (error,) = refusals("socks-proxy 192.0.2.8")
    assert "over TCP only" in error.reason and "proto tcp-client" in error.reason
    text = block("remote a 1194 udp", "socks-proxy 192.0.2.8") + block("remote b 443 tcp")
    profile = read(text, base=NO_REMOTE)
    assert [str(remote) for remote in profile.remotes] == ["b:443/tcp"] and profile.proxy is None
    assert any("a is left out" in notice.text for notice in profile.notices)


def test_blocks_share_one_proxy_and_one_over_udp_has_none():
    through = ("http-proxy 192.0.2.8 3128", "http-proxy-option VERSION 1.1")
    text = (
        block("remote a 1194 udp") + block("remote b 443 tcp", *through) + block("remote c 80 tcp", *through)
    )
    profile = read(text, base=NO_REMOTE)
    assert [str(remote) for remote in profile.remotes] == ["a:1194", "b:443/tcp", "c:80/tcp"]
    assert profile.proxy == ProxyLine("http", Endpoint("192.0.2.8", 3128))
    for name in ("ca", "certificate", "key"):
        setattr(profile, name, Material(0, text=name))
    again = parse_profile(serialize_tunnel(profile, "x"), "x.ovpn")
    assert (again.remotes, again.proxy) == (profile.remotes, profile.proxy)


def test_a_block_takes_the_proxy_above_it_unless_it_has_its_own():
    text = (
        "http-proxy 192.0.2.8 3128\n"
        + block("remote a 443 tcp")
        + block("remote b 443 tcp", "socks-proxy 192.0.2.9")
    )
    profile = read(text, base=NO_REMOTE)
    assert [str(remote) for remote in profile.remotes] == ["a:443/tcp"]
    assert profile.proxy == ProxyLine("http", Endpoint("192.0.2.8", 3128))
    assert any("its proxy differs" in notice.text for notice in profile.notices)


def test_a_server_s_file_has_none():
    text = "dev tap\nserver-bridge\nca a\ncert c\nkey k\nhttp-proxy p 1\n"
    (error,) = read_file(text, "s.conf").errors
    assert "client's profile" in error.reason


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A profile without certificates, which `bridged import` takes as it is."""
    file = tmp_path / "link.ovpn"
    lines = ["dev tap", "remote 192.0.2.1 443", "proto tcp-client", "cipher AES-256-CBC"]
    lines += ["http-proxy 192.0.2.8 3128 proxy.txt basic", "<secret>", static_key().strip(), "</secret>", ""]
    file.write_text("\n".join(lines))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("has_folder", [True, False])
def test_the_daemon_gets_the_password_that_was_imported(link: Path, has_folder: bool) -> None:
    (link.parent / "proxy.txt").write_text("alice\r\npass word\r\nmore\r\n")
    output = link.parent / "link.yaml"
    state = link.parent / "state" if has_folder else None
    import_file(link, port=["eth1"], state=state, output=output)
    configuration = parse(output.read_text(), output)
    plan = plan_tunnel(configuration, "link", link.parent)
    assert plan.session.role is Role.CLIENT and plan.proxy is not None
    assert (plan.proxy.kind, plan.proxy.where) == ("http", Endpoint("192.0.2.8", 3128))
    assert (plan.proxy.user, plan.proxy.password) == ("alice", "pass word")
    assert "pass word" not in repr(configuration) + repr(plan.proxy)


def test_a_password_file_of_one_line_is_refused(link: Path) -> None:
    (link.parent / "proxy.txt").write_text("alice\n")
    profile = parse_profile(link.read_text(), str(link))
    with pytest.raises(ConfigurationErrors) as caught:
        Materials(profile, link).texts()
    (error,) = caught.value.errors
    assert (error.key, error.line) == ("http-proxy", 5) and "two lines" in error.reason


def test_where_somebody_would_be_asked_a_file_is_to_be_written(link: Path) -> None:
    text = link.read_text().replace("proxy.txt basic", "stdin basic")
    profile = parse_profile(text, str(link))
    materials = Materials(profile, link)
    assert "proxy.txt" not in materials.texts()
    assert any("credentials_file" in remark for remark in materials.remarks)
    data = to_configuration(profile, Trust(wrap_key="/k"), tunnel_name="link", bridge="br0")
    assert data["tunnels"]["link"]["proxy"]["credentials_file"] == "link.proxy"
    assert render_yaml(data)
