"""OpenWrt's `/etc/config/openvpn`."""

from __future__ import annotations

import pytest

from bridged.errors import ConfigurationError
from bridged.profiles import read_file

SERVER = """
config openvpn 'lan'
\toption enabled '1'
\toption dev 'tap0'
\toption server_bridge '10.0.0.1 255.255.255.0 10.0.0.200 10.0.0.220'
\toption port 1195
\tlist push 'route 192.0.2.0 255.255.255.0'
\tlist push "dhcp-option DNS 10.0.0.1"
\toption client_to_client 1
\toption duplicate_cn '0'
\toption ca /etc/openvpn/ca.crt
\toption cert /etc/openvpn/server.crt
\toption key /etc/openvpn/server.key
\toption keepalive '10 120'
\toption tls_auth '/etc/openvpn/ta.key 0'
\toption persist_key 1
"""
OTHER = """
config openvpn sample_client
\toption enabled 0
\toption client 1
\toption config /etc/openvpn/x.ovpn
"""
HEAD = "package openvpn\n\nconfig other 'x'\n\toption nonsense 1\n"


def test_a_section_becomes_a_server():
    found = read_file(HEAD + SERVER, "openvpn")
    assert not found.errors and found.section == "lan" and found.role == "server"
    server = found.profile.server
    assert server.forwards_between_peers and not server.allows_duplicate_names
    assert server.push == ["route 192.0.2.0 255.255.255.0", "dhcp-option DNS 10.0.0.1"]
    assert str(server.listen) == "[::]:1195" and found.profile.wrap_direction == 0
    assert ("server-bridge", 9) in [(one.name, one.line) for one in found.report]


def test_the_enabled_section_is_chosen_or_the_one_that_is_named():
    assert read_file(SERVER + OTHER, "openvpn").section == "lan"
    with pytest.raises(ConfigurationError, match=r"give that to `bridged import`: /etc/openvpn/x\.ovpn"):
        read_file(SERVER + OTHER, "openvpn", "sample_client")
    with pytest.raises(ConfigurationError, match="lan, sample_client"):
        read_file(SERVER.replace("'1'", "'0'", 1) + OTHER, "openvpn")
    with pytest.raises(ConfigurationError, match="no section 'x'"):
        read_file(SERVER, "openvpn", "x")
    with pytest.raises(ConfigurationError, match="has no sections"):
        read_file("client\n", "x.ovpn", "x")


def test_lists_are_joined_as_openwrt_does():
    lines = "\tlist data_ciphers 'AES-128-GCM'\n\tlist data_ciphers 'AES-256-GCM'\n"
    assert read_file(SERVER + lines, "openvpn").profile.ciphers == ["AES-128-GCM", "AES-256-GCM"]


def test_a_broken_line_is_named():
    with pytest.raises(ConfigurationError, match=r"openvpn:17.*not UCI"):
        read_file(SERVER + "frobnicate\n", "openvpn")
