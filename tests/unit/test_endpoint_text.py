"""Endpoints as people write them are the endpoints that sockets report."""

from __future__ import annotations

import pytest

from bridged.addresses import Endpoint


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
