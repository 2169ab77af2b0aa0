"""Reading OpenVPN profiles: what is mapped, noted, refused, and with which line."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pytest

from bridged.addresses import Endpoint, MacAddress, Remote
from bridged.configuration.load import parse
from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.profiles import Trust, hints, parse_profile, render_yaml, serialize_tunnel, to_configuration
from bridged.profiles.directives import IGNORED, NOTED, REFUSED
from bridged.profiles.mapping import MAPPERS
from bridged.profiles.table import find_directive
from tests.unit.profiles.profile_texts import TRUST, configured, read, refusals

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("folder", sorted((ROOT / "tests/vectors").glob("a*")), ids=lambda path: path.name)
def test_client_files_of_the_vectors_are_read_or_refused_for_a_known_reason(folder):
    expected = {}.get(folder.name[:3])
    text = (folder / "client.ovpn").read_text()
    if expected is None:
        profile = parse_profile(text, "client.ovpn")
        assert profile.remotes
        text = profile.wrap_key.text if folder.name.startswith("a07") else profile.certificate.text
        assert "-----BEGIN " in text
    else:
        with pytest.raises(ConfigurationErrors, match=expected):
            parse_profile(text, "client.ovpn")


def test_every_directive_of_the_table_is_classified():
    page = (ROOT / "docs/protocol/data.md").read_text()
    table = page[page.index("## 7.") : page.index("## 8.")]
    rows = [
        line.split("|")[1:3] for line in table.splitlines() if line.startswith(("| Map", "| Accept", "| Ref"))
    ]
    assert len(rows) == 8
    unclassified = set()
    for _, cell in rows:
        for entry in re.sub(r"\([^)]*\)", "", cell).replace(";", ",").split(","):
            words = entry.split()
            if not words or words[0] in ("anything", "genkey", "cipher", "tun") or "with" in words[:1]:
                continue
            name = words[0].rstrip("*")
            if find_directive(name) is None:
                unclassified.add(name)
    assert unclassified <= {"pkcs11-"}


def test_no_directive_is_in_two_tables():
    tables = [set(MAPPERS), set(IGNORED), set(NOTED), set(REFUSED)]
    assert sum(len(table) for table in tables) == len(set().union(*tables))


def test_minimal_profile():
    profile = read()
    assert profile.remotes == [Remote(Endpoint("hub.example.net", 1195))]
    assert profile.local is None and profile.wrap == "none" and profile.tap_name is None
    assert profile.ca.path == "ca.crt" and profile.ca.line == 4
    assert profile.notices == []


def test_words_quotes_escapes_and_comments_are_read_as_openvpn_does():
    profile = read(
        '# comment\n; comment\n  verb 3 # trailing\nverify-x509-name "my \\"hub\\"" name ; trailing\n'
        "cd '/a dir/\\x'\n--tun-mtu 1400\nlladdr\t02:00:00:00:00:01\r\n"
    )
    assert profile.peer_name == 'my "hub"'
    assert profile.directory == "/a dir/\\x"
    assert profile.mtu == 1400
    assert profile.tap_mac == MacAddress.parse("02:00:00:00:00:01")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('ca "open', "not closed"),
        ("ca 'open", "not closed"),
        ("ca end\\", "backslash"),
        ("<ca>", "closes"),
        ("a " * 20, "more than 16 words"),
        ("x" * 5000, "4096"),
    ],
)
def test_broken_text_is_refused_with_its_line(line, text):
    error = refusals(line)[0]
    assert text in error.reason and error.file == "site.ovpn" and error.line == 4


def test_a_file_beyond_the_bounds_is_refused():
    with pytest.raises(ConfigurationError, match="larger than"):
        parse_profile("#" * 2_000_000, "x")
    with pytest.raises(ConfigurationError, match="10000 directives"):
        parse_profile("verb 3\n" * 10_001, "x")


def test_all_errors_come_at_once_in_file_order():
    errors = refusals("fragment 13\nverb 3\nno-replay\nfrobnicate\ntun-mtu huge")
    assert [(error.line, error.key) for error in errors] == [
        (4, "fragment"),
        (6, "no-replay"),
        (7, "frobnicate"),
        (8, "tun-mtu"),
    ]
    assert all(len(error.reason) > 20 for error in errors)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_refused_directive_is_refused_with_advice(name):
    (error,) = refusals(f"{name} x")
    assert (error.line, error.key, error.code) == (4, name, "profile")


@pytest.mark.parametrize("name", sorted(NOTED))
def test_every_directive_without_effect_at_layer_2_is_noted_with_its_line(name):
    (notice,) = read(f"{name} 1 2").notices
    assert notice.line == 4 and notice.text.startswith(f"`{name}`: ")


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_every_accepted_directive_changes_nothing(name):
    assert read(f"{name} 1") == read("# a comment in its place")


@pytest.mark.parametrize(
    "line",
    ["dev tun", "dev tun0", "dev-type tun", "dev tap\ndev-type tun", "dev null", "dev-type tun\ndev tap"],
)
def test_layer_3_is_refused(line):
    errors = refusals(line, base="client\nremote hub 1194\n")
    assert [error.key for error in errors] == ["dev"] and "dev tap" in errors[0].reason


def test_device_of_another_name_needs_its_type():
    assert "add `dev-type tap`" in refusals("dev lan7", base="client\nremote h\n")[0].reason
    assert read("dev lan7\ndev-type tap", base="client\nremote h\n").tap_name == "lan7"
    assert read("dev tap7", base="client\nremote h\n").tap_name == "tap7"


@pytest.mark.parametrize("line", ["mode server", "tls-server", "server-bridge", "push x", "port-share a 1"])
def test_a_servers_file_is_refused_as_such(line):
    assert "server" in refusals(line)[0].reason


def test_what_is_missing_is_said():
    keys = {error.key for error in refusals(base="verb 3\n", identity="")}
    assert keys == {"client", "dev", "remote", "cert", "key", "ca"}


def test_unknown_directive_is_refused_with_a_suggestion_unless_it_may_be_ignored():
    (error,) = refusals("data-cipher AES-256-GCM")
    assert "did you mean `data-ciphers`?" in error.reason
    (notice,) = read("ignore-unknown-option future-thing other\nfuture-thing 1").notices
    assert notice.line == 5 and "future-thing" in notice.text
    (notice,) = read("setenv opt future-thing 1").notices
    assert "future-thing" in notice.text
    assert read("setenv opt tun-mtu 1400").mtu == 1400
    assert read("setenv UV_SITE b").notices == []


def test_ignoring_unknown_options_does_not_let_refused_ones_pass():
    (error,) = refusals("ignore-unknown-option plugin no-replay\nplugin /x.so")
    assert error.key == "plugin"


def test_several_remotes_keep_their_order_and_defaults_apply():
    profile = read(
        "remote 192.0.2.1\nremote 2001:db8::1 1196 udp6\nrport 1200\nproto udp4", base="client\ndev tap\n"
    )
    assert configured(profile).remotes == ("192.0.2.1:1200/udp4", "[2001:db8::1]:1196/udp6")


def test_tcp_remotes_keep_their_place_and_their_family():
    lines = "remote a 443 tcp-client\nremote b\nremote c 1 tcp6-client\nremote d 2 udp4\nproto tcp4"
    profile = read(lines, base="client\ndev tap\n")
    assert configured(profile).remotes == ("a:443/tcp", "b:1194/tcp4", "c:1/tcp6", "d:2/udp4")


@pytest.mark.parametrize(
    ("word", "left"), [("udp", ["b:2"]), ("tcp", ["a:1/tcp"]), ("tcp-client", ["a:1/tcp"])]
)
def test_a_forced_protocol_leaves_out_the_servers_of_the_other(word, left):
    profile = read(f"remote a 1 tcp\nremote b 2 udp\nproto-force {word}", base="client\ndev tap\n")
    assert [str(remote) for remote in profile.remotes] == left
    assert "is left out" in profile.notices[0].text


def test_connection_blocks_are_remotes_of_their_own():
    profile = read(
        "<connection>\nremote a 1\nproto udp\n</connection>\n<connection>\nremote b\nport 2\n</connection>\n"
        "<connection>\nremote c\nproto tcp\n</connection>",
        base="client\ndev tap\n",
    )
    assert [str(remote) for remote in profile.remotes] == ["a:1", "b:2", "c:1194/tcp"]
    (error,) = refusals("<connection>\nremote a\n\nfragment 13\n</connection>")
    assert (error.line, error.key) == (7, "fragment")


def test_local_address_is_bound_only_where_it_is_asked_for():
    assert read("port 1195").local == Endpoint("::", 1195)
    assert read("lport 5000").local == Endpoint("::", 5000)
    assert read("local 192.0.2.9\nlport 5000").local == Endpoint("192.0.2.9", 5000)
    assert read("lport 5000\nnobind").local is None
    assert read("lport 0").local is None
    assert configured(read("lport 5000")).local == "[::]:5000"


def test_inline_blocks_are_kept_as_text_with_their_line():
    profile = read("<tls-auth>\nline 1\nline 2\n</tls-auth>\nkey-direction 1\nauth SHA256")
    assert (profile.wrap, profile.wrap_direction, profile.wrap_digest) == ("tls-auth", 1, "SHA256")
    assert profile.wrap_key.text == "line 1\nline 2\n" and profile.wrap_key.line == 4
    assert "line 1" not in repr(profile)
    tunnel = configured(profile)
    assert (tunnel.wrap.mode, tunnel.wrap.direction, tunnel.wrap.digest) == ("tls-auth", 1, "SHA256")


def test_tls_auth_takes_its_direction_as_second_word():
    assert read("tls-auth ta.key 0").wrap_direction == 0
    assert read("tls-auth ta.key").wrap_direction is None
    assert "from 0 to 1" in refusals("tls-auth ta.key 2")[0].reason
    assert read("auth SHA512\ntls-crypt c.key").wrap_digest is None
    assert "tls-auth" in refusals("auth MD5\ntls-auth ta.key")[0].reason
    assert "only one of" in refusals("tls-auth ta.key\ntls-crypt c.key")[0].reason


def test_inline_word_without_block_is_refused():
    assert "has none" in refusals("tls-crypt [inline]")[0].reason


def test_block_of_a_directive_that_has_no_block_form_is_refused():
    assert "block" in refusals("<remote>\nhub\n</remote>")[0].reason


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("remote-cert-tls server", "peer_role", "server"),
        ('remote-cert-eku "TLS Web Server Authentication"', "peer_role", "server"),
        ("verify-x509-name hub name", "peer_name", "hub"),
        ("verify-x509-name hub- name-prefix", "peer_name_prefix", "hub-"),
        ('verify-x509-name "CN=hub"', "peer_subject", "CN=hub"),
        ("tls-version-min 1.3", "version_min", "1.3"),
        ("tls-version-max 1.2", "version_max", "1.2"),
        ("crl-verify crl.pem", "crl", None),
    ],
)
def test_trust_is_mapped(line, field, value):
    profile = read(line)
    if value is not None:
        assert getattr(profile, field) == value
        assert getattr(configured(profile).tls, field) == value
    else:
        assert profile.crl.path == "crl.pem"


@pytest.mark.parametrize(
    ("line", "framing", "is_noted"),
    [
        ("comp-lzo", "comp-lzo", True),
        ("comp-lzo yes", "comp-lzo", True),
        ("comp-lzo adaptive", "comp-lzo", True),
        ("comp-lzo no", "comp-lzo", False),
        ("compress", "stub", False),
        ("compress stub", "stub", False),
        ("compress lz4", "stub", True),
        ("compress lzo", "comp-lzo", True),
        ("compress lz4-v2", "stub-v2", True),
        ("compress stub-v2", "stub-v2", False),
        ("compress migrate", None, False),
    ],
)
def test_compression_becomes_its_framing_which_an_export_writes_back(line, framing, is_noted):
    profile = read(line)
    assert profile.compression_framing == framing
    assert configured(profile).compression_framing == (framing or "auto")
    assert any(notice.line == 4 for notice in profile.notices) == is_noted
    exported = [one for one in serialize_tunnel(profile, "x").splitlines() if one.startswith("comp")]
    assert read("\n".join(exported)).compression_framing == framing


@pytest.mark.parametrize(
    ("line", "size"), [("fragment 1300", 1300), ("fragment 1300 mtu", 1272), ("fragment 0", None)]
)
def test_fragment_keeps_its_meaning_and_is_written_back(line, size):
    profile = read(line)
    assert profile.fragment == size and configured(profile).fragment == (size or 0)
    exported = [one for one in serialize_tunnel(profile, "x").splitlines() if one.startswith("fragment")]
    assert exported == ([f"fragment {size}"] if size else [])


@pytest.mark.parametrize(
    "line",
    [
        "fragment 100",
        "fragment 1300 fixed",
        "mtu-dynamic 1300",
        "compress zstd",
        "comp-lzo maybe",
        "verify-x509-name hub nonsense",
        "remote-cert-tls both",
        "remote-cert-eku 1.2.3",
        "tls-version-max 1.1",
        "crl-verify folder dir",
        "x509-username-field emailAddress",
        "peer-fingerprint 12:34",
        "cipher none",
        "data-ciphers BF-CBC",
        "data-ciphers-fallback none",
        "key-method 1",
        "lladdr ff:ff:ff:ff:ff:ff",
        "remote a:b:c:d 99999",
        "remote h 1194 sctp",
        "keepalive 10",
        "mssfix 100",
        "ifconfig 10.8.0.2 10.8.0.1",
        "dev a/b",
    ],
)
def test_values_that_cannot_be_honoured_are_refused(line):
    assert refusals(line)[0].line == 4


def test_pinned_peer_needs_no_ca_and_no_usage():
    pin = "ab" * 32
    block = "<peer-fingerprint>\n# hub\n" + ":".join(["AB"] * 32) + "\n</peer-fingerprint>"
    profile = read(block, identity="cert c\nkey k\n")
    assert profile.peer_fingerprints == [pin]
    data = to_configuration(profile, Trust("/c", "/k"), tunnel_name="t", bridge="br0")
    tls = parse(render_yaml(data), Path("/x/y.yaml")).tunnels["t"].tls
    assert tls.peer_fingerprints == (pin,) and tls.peer_role == "any" and tls.ca is None


def test_ciphers_are_mapped_and_unsupported_ones_left_out_with_a_notice():
    profile = read("data-ciphers ?chacha20-poly1305:SEED-CBC:AES-128-GCM\ncipher BF-CBC")
    assert profile.ciphers == ["CHACHA20-POLY1305", "AES-128-GCM"]
    assert [notice.line for notice in profile.notices] == [4, 5]
    assert configured(profile).ciphers == ("CHACHA20-POLY1305", "AES-128-GCM")
    assert configured(profile).fallback_cipher is None


@pytest.mark.parametrize(
    ("lines", "ciphers", "fallback", "auth", "notes"),
    [
        (
            "data-ciphers AES-256-GCM:AES-256-CBC\nauth SHA512",
            ("AES-256-GCM", "AES-256-CBC"),
            None,
            "SHA512",
            1,
        ),
        ("ncp-ciphers AES-192-GCM", ("AES-192-GCM",), None, None, 0),
        ("cipher AES-128-CBC\nkeysize 128", None, "AES-128-CBC", None, 1),
        ("cipher aes-256-cbc\nauth sha-256", None, "AES-256-CBC", "SHA256", 1),
        ("cipher AES-256-CBC\ndata-ciphers-fallback AES-256-GCM", None, "AES-256-GCM", None, 1),
        ("data-ciphers-fallback AES-192-CBC\ncipher BF-CBC", None, "AES-192-CBC", None, 1),
        ("data-ciphers-fallback BF-CBC", None, None, None, 1),
        ("cipher AES-256-CBC\nauth RIPEMD160", None, None, None, 2),
        ("cipher AES-256-GCM\nauth SHA256", None, None, None, 0),
    ],
)
def test_old_ciphers_are_used_where_the_file_names_them(lines, ciphers, fallback, auth, notes):
    profile = read(lines + "\nremote-cert-tls server")
    tunnel = configured(profile)
    default = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
    assert (tunnel.ciphers, tunnel.fallback_cipher, tunnel.auth) == (ciphers or default, fallback, auth)
    assert len([notice for notice in profile.notices if notice.line]) == notes


@pytest.mark.parametrize(
    ("line", "wan_mtu", "mss"),
    [
        ("mssfix", 1492, None),
        ("mssfix 0", None, 0),
        ("mssfix 1400 mtu", 1400, None),
        ("mssfix 1400", 1428, None),
        ("mssfix 1400 fixed", None, 1360),
    ],
)
def test_mssfix_keeps_its_meaning(line, wan_mtu, mss):
    profile = read(line)
    assert (profile.wan_mtu, profile.mss) == (wan_mtu, mss)
    tunnel = configured(profile)
    assert tunnel.mss == ("auto" if mss is None else "off" if mss == 0 else mss)


def test_life_is_mapped_and_brought_within_our_limits():
    profile = read(
        "keepalive 5 20\nreneg-sec 0\nreneg-bytes 1000\nhand-window 2\nreplay-window 32 10\n"
        "explicit-exit-notify 2\nreneg-pkts 7\ntran-window 60"
    )
    tunnel = configured(profile)
    assert (tunnel.keepalive.ping_seconds, tunnel.keepalive.restart_seconds) == (5, 20)
    assert (tunnel.renegotiate.seconds, tunnel.renegotiate.bytes, tunnel.renegotiate.packets) == (0, 1000, 7)
    assert (tunnel.handshake_seconds, tunnel.transition_seconds, tunnel.replay_window) == (5, 60, 64)
    assert tunnel.exit_notify is True
    assert [notice.line for notice in profile.notices] == [7, 8]
    assert configured(read("ping 10\nping-restart 15")).keepalive.restart_seconds == 20


def test_addresses_go_to_the_bridge():
    profile = read("ifconfig 10.8.0.2 255.255.255.0\nifconfig-ipv6 2001:db8::2/64")
    data = to_configuration(profile, TRUST, tunnel_name="hub", bridge="br0")
    assert data["bridges"]["br0"]["addresses"] == ["10.8.0.2/24", "2001:db8::2/64"]
    parse(render_yaml(data), Path("/x/y.yaml"))


@pytest.mark.parametrize("blocks", [0, 60])
def test_the_work_for_unknown_directives_is_bounded_for_the_whole_file(
    monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    compared = []

    def count(name: str, *arguments: Any, **options: Any) -> list[str]:
        compared.append(name)
        return get_close_matches(name, *arguments, **options)

    monkeypatch.setattr(hints, "get_close_matches", count)
    # Names with capitals are asked for twice: for the hint, and whether they may be quoted.
    junk = [f"Qx{number:04}-Junk value" for number in range(5_000)]
    share = len(junk) // (blocks or 1)
    lines = ["data-cipher X"] + ([] if blocks else junk)
    for start in range(0, share * blocks, share):
        lines += ["<connection>", "remote a.example", *junk[start : start + share], "</connection>"]
    errors = refusals("\n".join(lines))
    assert "did you mean `data-ciphers`?" in errors[0].reason
    assert len(compared) == len(set(compared)) == hints.SpellingHints.COMPARISONS_MAX
    # Reading stops after 50, except for one of each block; some directives are then missing as well.
    assert 50 <= len(errors) <= 60 + 2 * blocks


def test_a_name_that_comes_again_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(hints, "get_close_matches", lambda name, *_, **__: compared.append(name) or [])
    assert len(refusals("Odd-Name x\n" * 5_000)) >= 50
    assert compared == ["Odd-Name"]
