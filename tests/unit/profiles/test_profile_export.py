"""The profile that an invitation is: what it says, and that our own reader takes it."""

from __future__ import annotations

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.profiles import ClientProfile, parse_profile, serialize_profile

# Directives of `openvpn --help` of 2.4; anything else must be announced by ignore-unknown-option before.
KNOWN_TO_2_4 = {
    *("client", "dev", "proto", "remote", "resolv-retry", "nobind", "float", "persist-key", "persist-tun"),
    *("remote-cert-tls", "verify-x509-name", "tls-version-min", "cipher", "ignore-unknown-option"),
    *("explicit-exit-notify", "verb"),
}


def profile(remote):
    return ClientProfile(
        name="site-b",
        remote=remote,
        server_name="server",
        ca_pem="-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n",
        certificate_pem="-----BEGIN CERTIFICATE-----\ncert\n-----END CERTIFICATE-----\n",
        key_pem="-----BEGIN PRIVATE KEY-----\nkey\n-----END PRIVATE KEY-----\n",
        tls_crypt_key="-----BEGIN OpenVPN Static key V1-----\n00\n-----END OpenVPN Static key V1-----\n",
    )


@pytest.mark.parametrize(
    "remote", [Endpoint("hub.example.net", 1194), Endpoint("192.0.2.1", 443), Endpoint("2001:db8::1", 1194)]
)
def test_our_reader_takes_it_without_a_notice(remote):
    read = parse_profile(serialize_profile(profile(remote)), "site-b.ovpn")
    assert read.notices == []
    assert read.remotes == [Remote(remote)]
    assert (read.wrap, read.peer_role, read.peer_name) == ("tls-crypt", "server", "server")
    assert read.key.text == "-----BEGIN PRIVATE KEY-----\nkey\n-----END PRIVATE KEY-----\n"
    assert read.exit_notify is True and read.local is None


def test_dev_tap_is_said_and_options_newer_than_2_4_stand_behind_ignore_unknown_option():
    lines = serialize_profile(profile(Endpoint("h", 1))).splitlines()
    assert "dev tap" in lines and "client" in lines and "remote h 1" in lines
    announced = set()
    for line in lines[: lines.index("<ca>")]:
        if not line or line.startswith("#"):
            continue
        name, *arguments = line.split()
        if name == "ignore-unknown-option":
            announced.update(arguments)
        assert name in KNOWN_TO_2_4 or name in announced, line


def test_windows_users_are_told_which_adapter_they_need():
    assert "TAP-Windows6" in serialize_profile(profile(Endpoint("h", 1)))


def test_repr_shows_no_secret():
    assert "PRIVATE" not in repr(profile(Endpoint("h", 1))) and "Static" not in repr(
        profile(Endpoint("h", 1))
    )
