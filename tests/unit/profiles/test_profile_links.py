"""Profiles of point-to-point links, with certificates and with a static key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridged.configuration.load import parse
from bridged.profiles import (
    Material,
    parse_profile,
    read_file,
    render_yaml,
    serialize_tunnel,
    to_configuration,
)
from tests.unit.profiles.profile_texts import IDENTITY, TRUST, configured, refusals


def test_a_part_of_a_profile_is_taken_as_a_client_and_said():
    profile = parse_profile("dev tap\nremote hub\n" + IDENTITY, "x.ovpn")
    assert any("taken as a client" in notice.text for notice in profile.notices)
    assert not configured(profile).point_to_point


def test_a_tls_client_without_pull_is_an_end_of_a_point_to_point_link():
    base = "tls-client\ndev tap\nremote hub\n" + IDENTITY
    tunnel = configured(parse_profile(base, "x.ovpn"))
    assert (tunnel.role, tunnel.point_to_point) == ("client", True)
    assert not configured(parse_profile(base + "pull\n", "x.ovpn")).point_to_point


@pytest.mark.parametrize(
    ("lines", "role", "wrap"),
    [
        ("remote hub\n", "client", {"direction": None, "digest": "SHA1"}),
        ("remote hub\nauth SHA256\nkey-direction 1\n", "client", {"direction": 1, "digest": "SHA256"}),
        ("port 1195\n", "server", {"direction": None, "digest": "SHA1"}),
    ],
)
def test_a_static_key_becomes_a_wrap_without_tls(lines, role, wrap):
    text = "dev tap\ncipher AES-256-CBC\nsecret static.key\n" + lines
    found = read_file(text, "x.conf")
    assert not found.errors, found.errors
    assert any("no forward secrecy" in notice.reason for notice in found.profile.notices)
    trust = replace(TRUST, wrap_key="/x/static.key")
    data = to_configuration(found.profile, trust, tunnel_name="t", bridge="br0")
    tunnel = parse(render_yaml(data), Path("/x/y.yaml")).tunnels["t"]
    assert (tunnel.role, tunnel.point_to_point, tunnel.ciphers) == (role, True, ("AES-256-CBC",))
    assert tunnel.wrap.mode == "static-key" and tunnel.wrap.key == "/x/static.key"
    assert {name: getattr(tunnel.wrap, name) for name in wrap} == wrap


@pytest.mark.parametrize("cipher", ["", "cipher BF-CBC\n", "cipher AES-256-GCM\n"])
def test_with_a_static_key_a_cipher_that_we_lack_must_be_changed_at_the_other_end(cipher):
    found = read_file(f"dev tap\nremote hub\nsecret static.key\n{cipher}", "x.conf")
    assert not found.errors and found.profile.ciphers == ["AES-256-CBC"]
    assert any("at the other end, too" in notice.reason for notice in found.profile.notices)


@pytest.mark.parametrize(
    ("lines", "role", "transport"),
    [
        ("proto tcp-client\nremote hub\n", "client", "udp"),
        ("proto tcp-server\nport 1195\n", "server", "tcp"),
        ("proto tcp6-server\nremote hub\n", "server", "tcp"),
    ],
)
def test_a_static_key_over_tcp_has_an_end_that_calls_and_one_that_waits(lines, role, transport):
    found = read_file(f"dev tap\ncipher AES-256-CBC\nsecret static.key\n{lines}", "x.conf")
    assert not found.errors, found.errors
    data = to_configuration(found.profile, replace(TRUST, wrap_key="/k"), tunnel_name="t", bridge="br0")
    tunnel = parse(render_yaml(data), Path("/x/y.yaml")).tunnels["t"]
    assert (tunnel.role, tunnel.transport, tunnel.point_to_point) == (role, transport, True)
    assert all(remote.endswith("/tcp") for remote in tunnel.remotes)
    if role == "client":
        found.profile.wrap_key = Material(0, text="KEY\n")
        again = read_file(serialize_tunnel(found.profile, "t"), "x.conf").profile
        assert (again.wrap, again.remotes) == ("static-key", found.profile.remotes)


@pytest.mark.parametrize(("protocol", "transport"), [("tcp-server", "tcp"), ("udp", "udp")])
def test_a_link_with_certificates_that_waits_keeps_its_transport(protocol, transport):
    text = f"dev tap\ntls-server\nproto {protocol}\nca a\ncert c\nkey k\n"
    data = to_configuration(read_file(text, "x.conf").profile, TRUST, tunnel_name="t", bridge="br0")
    tunnel = parse(render_yaml(data), Path("/x/y.yaml")).tunnels["t"]
    assert (tunnel.transport, tunnel.point_to_point) == (transport, True)


def test_a_link_without_any_security_is_refused():
    (error,) = [
        error for error in refusals(base="dev tap\nremote hub\n", identity="") if error.key == "client"
    ]
    assert "in the clear" in error.reason
