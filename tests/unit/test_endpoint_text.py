"""Endpoints as people write them are the endpoints that sockets report."""

from __future__ import annotations

import pytest

from bridged.addresses import Endpoint, Remote


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("[2001:DB8:0::b]:1194", Endpoint("2001:db8::b", 1194)),
        ("[2001:db8:0:0:0:0:0:b]:1194", Endpoint("2001:db8::b", 1194)),
        ("[::ffff:192.0.2.1]:5", Endpoint("192.0.2.1", 5)),
        ("[::ffff:c000:201]:5", Endpoint("192.0.2.1", 5)),
        ("[fe80::0:1%eth0]:3", Endpoint("fe80::1%eth0", 3)),
        ("192.0.2.1:4", Endpoint("192.0.2.1", 4)),
        ("vpn.example:1194", Endpoint("vpn.example", 1194)),
    ],
)
def test_a_written_endpoint_equals_the_one_that_a_socket_reports(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("vpn.example:5", Remote(Endpoint("vpn.example", 5), "udp")),
        ("vpn.example:5/udp", Remote(Endpoint("vpn.example", 5), "udp")),
        ("vpn.example:5/udp4", Remote(Endpoint("vpn.example", 5), "udp4")),
        ("vpn.example/udp6", Remote(Endpoint("vpn.example", 1194), "udp6")),
        ("[2001:db8::1]:5/udp6", Remote(Endpoint("2001:db8::1", 5), "udp6")),
        ("192.0.2.1/udp4", Remote(Endpoint("192.0.2.1", 1194), "udp4")),
        ("vpn.example:443/tcp", Remote(Endpoint("vpn.example", 443, "tcp"), "tcp")),
        ("192.0.2.1:443/tcp4", Remote(Endpoint("192.0.2.1", 443, "tcp"), "tcp4")),
        ("[2001:db8::1]:443/tcp6", Remote(Endpoint("2001:db8::1", 443, "tcp"), "tcp6")),
    ],
)
def test_a_written_remote_keeps_its_ip_family(text: str, remote: Remote) -> None:
    assert Remote.parse(text, 1194) == remote
    assert Remote.parse(str(remote)) == remote


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("vpn.example:5/sctp", "after `/` comes udp4, udp6, tcp, tcp4 or tcp6"),
        ("vpn.example:5/", "after `/` comes udp4, udp6, tcp, tcp4 or tcp6"),
        ("[2001:db8::1]:5/tcp4", "tcp4 cannot reach an IPv6 address"),
        ("192.0.2.1:5/udp6", "udp6 cannot reach an IPv4 address"),
        ("[2001:db8::1]:5/udp4", "udp4 cannot reach an IPv6 address"),
    ],
)
def test_a_family_that_cannot_be_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Remote.parse(text)


@pytest.mark.parametrize("host", ["10.0.0.999", "192.0.2", "1194", "1.2.3.4.5", "192.0.2.1."])
def test_a_mistyped_ipv4_address_is_not_taken_for_a_name(host: str) -> None:
    for text in (f"{host}:1194", host):
        with pytest.raises(ValueError, match=f"{host} is not an IP address"):
            Remote.parse(text, 1194)
