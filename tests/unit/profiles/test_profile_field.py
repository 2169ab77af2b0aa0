"""Profiles of other programs, as they come: what OpenVPN takes is taken, with the same meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.errors import ConfigurationError
from bridged.profiles import (
    Trust,
    parse_profile,
    read_file,
    to_configuration,
)
from bridged.profiles.table import DIRECTIVES, find_directive
from bridged.profiles.text import decode_text
from tests.unit.profiles.profile_texts import configured, connection, read, refusals

KNOWN = [
    line.split()[0]
    for line in (Path(__file__).parent / "openvpn_options.txt").read_text().splitlines()
    if not line.startswith("#")
]
"""All names of OpenVPN 2.3 to 2.8; the file says where they are from."""

NO_REMOTE = "client\ndev tap\n"
BLOCK_KEY = "<tls-auth>\nkey of {}\n</tls-auth>\n"


def identity(markers=""):
    blocks = "".join(f"<{tag}>\ntext of {tag}\n</{tag}>\n" for tag in ("ca", "cert", "key"))
    return "remote-cert-tls server\n" + markers + blocks


# Inline markers


def test_inline_markers_beside_their_blocks_are_taken_and_their_direction_counts():
    markers = "ca [inline]\ncert [inline]\nkey [inline]\ntls-auth [inline] 1\n"
    for text in (identity(markers) + BLOCK_KEY, identity() + BLOCK_KEY + markers):
        profile = read(identity=text)
        assert profile.ca.text == "text of ca\n" and profile.key.text == "text of key\n"
        assert (profile.wrap, profile.wrap_direction) == ("tls-auth", 1)
        assert profile.wrap_key.text == "key of {}\n"
        assert profile.notices == []


def test_an_inline_marker_without_its_block_is_refused_once_with_its_line():
    (error,) = refusals("ca [inline]", identity="cert c\nkey k\nremote-cert-tls server\n")
    assert (error.line, error.key) == (4, "ca") and "<ca>" in error.reason


# Directives


@pytest.mark.parametrize("head", ["client\nremote h\n", "server-bridge\n"])
@pytest.mark.parametrize("name", KNOWN)
def test_no_directive_of_openvpn_2_3_to_2_8_is_called_unknown(name, head):
    found = read_file(f"{head}dev tap\nca c\ncert c\nkey k\n{name} x\n", "p")
    assert find_directive(name, found.role) is not None
    assert not any("no directive" in error.reason for error in found.errors)
    (outcome,) = [one for one in found.report if one.line == head.count("\n") + 5]
    assert outcome.name == name and outcome.verdict


@pytest.mark.parametrize("role", ["client", "server"])
def test_the_table_knows_no_name_that_openvpn_does_not(role):
    assert set(DIRECTIVES[role]) <= set(KNOWN)


@pytest.mark.parametrize(
    "line",
    [
        "allow-pull-fqdn",
        "down-pre",
        "http-proxy-retry",
        "ifconfig-nowarn",
        "keying-material-exporter EXPORTER-x 16",
        "mtu-test",
        "replay-persist replay.state",
        "socks-proxy-retry",
        "tls-export-cert .",
        "tun-mtu-extra 32",
        "up-delay",
        "up-restart",
        "x509-track CN",
        "fragment 0",
        "proto-force udp",
    ],
)
def test_directives_without_any_effect_here_are_taken_in_silence(line):
    assert read(line).notices == []


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("route-up /bin/true", "script"),
        ("route-pre-down /bin/true", "script"),
        ("ipchange /bin/true", "script"),
        ("single-session", "reconnects"),
        ("tls-exit", "reconnects"),
        ("link-mtu 1573", "tun-mtu"),
        ("ncp-disable", "negotiated"),
    ],
)
def test_directives_whose_effect_is_missing_are_noted_with_their_line(line, word):
    (notice,) = read(line).notices
    assert notice.line == 4 and word in notice.text


def test_directives_that_would_harm_are_refused_with_the_true_reason():
    (error,) = refusals("no-iv")
    assert "not safe" in error.reason and "did you mean" not in error.reason


def test_ignored_options_may_have_the_hyphens_of_a_command_line():
    (notice,) = read("ignore-unknown-option --future-thing\nfuture-thing 1").notices
    assert "ignore-unknown-option" in notice.text


def test_forward_compatible_lets_unknown_directives_pass_from_its_line_on():
    (notice,) = read("setenv FORWARD_COMPATIBLE 1\nsome-future-option yes").notices
    assert notice.line == 5 and "some-future-option" in notice.text
    (error,) = refusals("some-future-option yes\nsetenv FORWARD_COMPATIBLE 1")
    assert error.line == 4
    (error,) = refusals("setenv FORWARD_COMPATIBLE 1\nplugin /x.so")
    assert error.key == "plugin"


# Names


def test_a_whole_subject_is_kept_for_comparison_with_and_without_its_type():
    subject = "C=NL, ST=Zuid-Holland, O=Müller & Söhne BV, CN=vpn.example.net"
    for line in (f'verify-x509-name "{subject}" subject', f'verify-x509-name "{subject}"'):
        assert configured(read(line)).tls.peer_subject == subject


def test_the_last_of_several_names_holds_as_in_openvpn():
    profile = read('verify-x509-name hub name\nverify-x509-name "CN=hub"')
    assert (profile.peer_name, profile.peer_name_prefix, profile.peer_subject) == (None, None, "CN=hub")


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("tls-remote vpn.example.net", "peer_name_prefix", "vpn.example.net"),
        ("tls-remote 'C=NL, CN=vpn'", "peer_subject", "C=NL, CN=vpn"),
        ("tls-remote /C=NL/O=a/b/CN=vpn", "peer_subject", "C=NL, O=a/b, CN=vpn"),
    ],
)
def test_tls_remote_keeps_its_meaning(line, key, value):
    assert getattr(configured(read(line)).tls, key) == value


def test_the_old_form_that_hides_characters_is_refused_with_the_cure():
    (error,) = refusals("tls-remote /C=NL/O=Example_BV/CN=vpn")
    assert "verify-x509-name" in error.reason and "openssl x509" in error.reason


# Families, sizes


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("remote h 1194 udp4", "h:1194/udp4"),
        ("remote h 1194 udp6", "h:1194/udp6"),
        ("remote h 1194 udp", "h:1194"),
        ("proto udp4\nremote h", "h:1194/udp4"),
        ("remote h\nproto udp6", "h:1194/udp6"),
        ("proto udp6\nremote h 1194 udp4", "h:1194/udp4"),
        (connection("remote h", "proto udp4"), "h:1194/udp4"),
    ],
)
def test_the_ip_family_of_a_remote_is_kept(text, remote):
    assert configured(read(text, base=NO_REMOTE)).remotes == (remote,)


def test_remote_random_shuffles_the_servers():
    assert configured(read("remote-random")).remotes_order == "shuffled"
    assert configured(read("")).remotes_order == "listed"


def test_an_address_of_the_other_family_is_left_out_with_a_notice():
    profile = read("remote 2001:db8::1 1194 udp4")
    assert len(profile.remotes) == 1 and "left out" in profile.notices[0].text


@pytest.mark.parametrize("size", [1400, 6000])
def test_tun_mtu_sets_tunnel_and_tap_and_no_port(size):
    data = to_configuration(read(f"tun-mtu {size}"), Trust("/c", "/k", "/a"), tunnel_name="t", bridge="br0")
    assert "mtu" not in data["bridges"]["br0"]
    assert data["tunnels"]["t"]["mtu"] == data["tunnels"]["t"]["tap"]["mtu"] == size


# Connection blocks


def test_what_an_unused_block_has_refuses_nothing():
    text = (
        connection("remote a 1194 udp")
        + connection("remote b 443 tcp", "http-proxy 192.0.2.8 8080", "frobnicate", "auth-user-pass")
        + connection("remote c 1194 udp", "fragment 13")
    )
    profile = read(text, base=NO_REMOTE)
    assert [str(remote) for remote in profile.remotes] == ["a:1194"]
    left_out = [notice.text for notice in profile.notices]
    assert len(left_out) == 2 and "`frobnicate`" in left_out[0] and "`fragment`" in left_out[1]
    assert profile.proxy is None


def test_a_blocks_refusal_counts_where_nothing_else_can_be_used():
    (error,) = refusals(connection("remote a", "fragment 13"), base=NO_REMOTE)
    assert (error.line, error.key) == (5, "fragment")


def test_a_wrap_in_a_block_is_taken_and_one_outside_is_inherited():
    inside = connection("remote a", BLOCK_KEY.format(1).strip(), "key-direction 1")
    profile = read(inside, base=NO_REMOTE)
    assert (profile.wrap, profile.wrap_direction, profile.wrap_key.text) == ("tls-auth", 1, "key of 1\n")
    outside = connection("remote a") + "key-direction 0\n" + BLOCK_KEY.format(2)
    profile = read(outside, base=NO_REMOTE)
    assert (profile.wrap, profile.wrap_direction, profile.wrap_key.text) == ("tls-auth", 0, "key of 2\n")


def test_a_block_that_cannot_share_a_tunnel_with_the_first_is_left_out_and_said():
    text = "".join(connection(f"remote {host}", BLOCK_KEY.format(host).strip()) for host in ("a", "b"))
    profile = read(text + connection("remote c", "tun-mtu 1400"), base=NO_REMOTE)
    assert [str(remote) for remote in profile.remotes] == ["a:1194"]
    assert all("left out" in notice.text for notice in profile.notices) and len(profile.notices) == 2


def test_a_block_begins_with_what_stands_above_it_and_tells_the_others_nothing():
    text = "mssfix 1400\n" + connection("remote a", "port 1195", "proto udp4", "mssfix 1300")
    text += connection("remote b") + connection("remote c", "lport 5000")
    profile = read(text, base=NO_REMOTE)
    assert [str(remote) for remote in profile.remotes] == ["a:1195/udp4", "b:1194", "c:1194"]
    assert str(profile.local) == "[::]:1195"
    sizes = configured(profile).remote_sizes
    assert {text: one.wan_mtu for text, one in sizes.items()} == {
        "a:1195/udp4": 1328,
        "b:1194": 1428,
        "c:1194": 1428,
    }
    assert profile.wan_mtu is None and profile.notices == []


def test_the_mssfix_of_one_block_holds_for_its_server_alone():
    text = connection("remote a", "mssfix 1300") + connection("remote b") + connection("remote c", "mssfix 0")
    tunnel = configured(read(text, base=NO_REMOTE))
    assert (tunnel.wan_mtu, tunnel.mss) == (1492, "auto")
    assert tunnel.remote_sizes["a:1194"].wan_mtu == 1328 and tunnel.remote_sizes["c:1194"].mss == "off"
    assert "b:1194" not in tunnel.remote_sizes


def test_the_number_of_blocks_and_of_refusals_in_one_is_bounded():
    (error,) = refusals(connection("remote a") * 65, base=NO_REMOTE)
    assert error.key == "connection" and "more than 64" in error.reason
    assert len(refusals(connection("remote a", *["frobnicate"] * 200), base=NO_REMOTE)) == 50


def test_directives_of_the_whole_file_cannot_stand_in_a_block():
    (error,) = refusals(connection("remote a", "cipher AES-256-GCM"), base=NO_REMOTE)
    assert error.key == "cipher" and "above the blocks" in error.reason


def test_a_server_that_is_named_twice_is_tried_once():
    assert [str(one) for one in read("remote a\nremote b\nremote a", base=NO_REMOTE).remotes] == [
        "a:1194",
        "b:1194",
    ]


def test_only_blocks_count_where_there_are_any():
    profile = read(connection("remote a"))
    assert [str(remote) for remote in profile.remotes] == ["a:1194"]
    assert "only those count" in profile.notices[0].text


# Characters


def test_a_line_that_is_not_utf8_is_taken_as_latin_1_and_the_others_are_not():
    assert decode_text("# Büro\n".encode("latin-1") + "verb 3 # Büro".encode(), "p") == (
        "# Büro\nverb 3 # Büro"
    )


def test_utf_16_with_a_mark_is_read():
    assert decode_text("client\n# Büro\n".encode("utf-16"), "p.ovpn") == "client\n# Büro\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_refused_with_the_cure(encoding):
    with pytest.raises(ConfigurationError, match="iconv -f UTF-16"):
        decode_text("client\ndev tap\n".encode(encoding), "p.ovpn")


def test_a_nul_ends_the_line_as_in_openvpn():
    profile = read("verb 3\0rubbish\n<tls-crypt>\nkey\0\0\n\0\0</tls-crypt>\n</tls-crypt>\n\0\0\0")
    assert profile.wrap_key.text == "key\n\n" and profile.notices == []


def test_a_configuration_given_as_a_profile_is_called_so():
    with pytest.raises(ConfigurationError, match="bridged run --config"):
        parse_profile("# c\nbridges:\n  br0: {}\ntunnels: {}\n", "c.yaml")


# Roles


def test_a_missing_or_outdated_role_of_the_server_is_said_with_the_cure():
    (notice,) = read(identity="ca c\ncert c\nkey k\n").notices
    assert "extendedKeyUsage = serverAuth" in notice.text and "verify-x509-name" in notice.text
    profile = read("ns-cert-type server", identity="ca c\ncert c\nkey k\n")
    assert [notice.line for notice in profile.notices] == [0, 4] and profile.peer_role == "compatible"
    assert "remote-cert-tls" in profile.notices[1].text
    assert read("ns-cert-type server\nremote-cert-tls server").peer_role == "server"
    assert "the other end's certificate" in refusals("ns-cert-type client")[0].reason


# Times that the file has only one of


@pytest.mark.parametrize(
    ("lines", "ping", "restart"),
    [("ping 31", 31, 62), ("ping-restart 5", 10, 20), ("ping 5", 5, 60), ("keepalive 10 15", 10, 20)],
)
def test_silence_has_time_for_two_pings(lines, ping, restart):
    keepalive = configured(read(lines)).keepalive
    assert (keepalive.ping_seconds, keepalive.restart_seconds) == (ping, restart)


# Lines that come twice


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("dev tun\ndev tap7", "tap7"),
        ("dev tap7\ndev tap", None),
        ("dev tun\ndev lan7\ndev-type tun\ndev-type tap", "lan7"),
    ],
)
def test_the_last_device_counts(lines, name):
    assert read(lines, base="client\nremote h\n").tap_name == name
    (error,) = refusals(f"{lines}\ndev-type tun", base="client\nremote h\n")
    assert error.key == "dev"


def test_the_last_address_of_each_ip_version_counts():
    lines = "ifconfig 10.8.0.2 255.255.255.0\nifconfig-ipv6 2001:db8::2/64\nifconfig 10.8.0.3 255.255.255.0"
    assert read(lines).addresses == ["2001:db8::2/64", "10.8.0.3/24"]
    (error,) = refusals("ifconfig-ipv6 10.8.0.2/24")
    assert "not an IPv6 address" in error.reason


def test_data_ciphers_default_stands_for_all_of_ours():
    assert read("data-ciphers DEFAULT:BF-CBC").ciphers == [
        "AES-256-GCM",
        "AES-128-GCM",
        "CHACHA20-POLY1305",
    ]
    assert read("data-ciphers AES-128-GCM:DEFAULT").ciphers[0] == "AES-128-GCM"


@pytest.mark.parametrize("name", ["0E0", "1e5", "12", "0x1F", "-1.5", ".5", "null", "true", "~"])
def test_a_name_that_yaml_could_take_for_something_else_stays_a_name(name):
    assert configured(read(f"dev-type tap\ndev {name}")).tap.name == name
