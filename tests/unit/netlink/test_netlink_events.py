from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from bridged.netlink.watch import HostEvent, parse_events

NEWLINK, DELLINK, NEWROUTE = 16, 17, 24
AF_UNSPEC, AF_BRIDGE, AF_INET = 0, 7, 2


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def link_body(family: int, index: int, name: str) -> bytes:
    return struct.pack("=BBHiII", family, 0, 1, index, 0, 0) + attribute(3, name.encode() + b"\0")


def test_events_of_one_datagram_come_in_order() -> None:
    datagram = message(NEWLINK, link_body(AF_UNSPEC, 900001, "eth1")) + message(
        DELLINK, link_body(AF_UNSPEC, 900002, "eth2")
    )
    assert list(parse_events(datagram)) == [
        HostEvent("link", "eth1", 900001),
        HostEvent("link", "eth2", 900002, gone=True),
    ]


def test_a_port_that_leaves_its_bridge_is_not_gone() -> None:
    datagram = message(DELLINK, link_body(AF_BRIDGE, 900001, "eth1"))
    assert list(parse_events(datagram)) == [HostEvent("link", "eth1", 900001)]


def test_a_route_names_its_link_or_none() -> None:
    body = struct.pack("=BBBBBBBBI", AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
    datagram = message(NEWROUTE, body + attribute(4, struct.pack("=i", 1))) + message(NEWROUTE, body)
    assert list(parse_events(datagram)) == [HostEvent("route", "", 1), HostEvent("route")]


def test_a_route_by_several_links_is_an_event_for_each() -> None:
    body = struct.pack("=BBBBBBBBI", AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
    hops = b"".join(struct.pack("=HBBi", 16, 0, 0, index) + attribute(5, bytes(4)) for index in (7, 9))
    datagram = message(NEWROUTE, body + attribute(9, hops))
    assert list(parse_events(datagram)) == [HostEvent("route", "", 7), HostEvent("route", "", 9)]


def test_routes_of_the_local_table_go_with_their_address_and_are_left_out() -> None:
    body = struct.pack("=BBBBBBBBI", AF_INET, 0, 0, 0, 255, 3, 0, 1, 0)
    assert list(parse_events(message(NEWROUTE, body + attribute(4, struct.pack("=i", 1))))) == []


def test_other_messages_are_left_out() -> None:
    assert list(parse_events(message(28, bytes(12)) + message(3, b""))) == []


@given(st.binary(max_size=200))
def test_no_datagram_makes_it_fail(datagram: bytes) -> None:
    list(parse_events(datagram))
