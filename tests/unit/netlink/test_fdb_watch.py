from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from bridged.addresses import MacAddress
from bridged.netlink.fdb_watch import StationHeard, parse_stations

MAC = MacAddress.parse("02:00:5e:00:00:07")
NEW, DELETED = 28, 29
REACHABLE, NOARP, PERMANENT = 0x02, 0x40, 0x80
BRIDGE, INET = 7, 2


def message(
    *, kind: int = NEW, family: int = BRIDGE, index: int = 5, state: int = REACHABLE, mac: bytes = MAC.octets
) -> bytes:
    """A neighbour message: a VLAN attribute first, then the address."""
    attributes = struct.pack("=HHHxx", 6, 5, 1) + struct.pack("=HH", 4 + len(mac), 2) + mac
    attributes += bytes(-len(attributes) % 4)
    body = struct.pack("=BxxxiHBB", family, index, state, 0, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_learned_stations_of_one_datagram_are_told_in_order() -> None:
    datagram = message(index=5) + message(index=6)
    assert list(parse_stations(datagram)) == [StationHeard(MAC, 5), StationHeard(MAC, 6)]


def test_a_station_that_was_forgotten_is_told_as_gone() -> None:
    assert list(parse_stations(message(kind=DELETED))) == [StationHeard(MAC, 5, gone=True)]


def test_what_was_set_by_hand_or_is_no_bridge_s_is_left_out() -> None:
    for other in (
        message(kind=DELETED, state=NOARP),
        message(family=INET),
        message(state=NOARP),
        message(state=PERMANENT),
        message(mac=bytes(8)),
    ):
        assert list(parse_stations(other)) == []


@given(st.binary(max_size=200))
def test_any_octets_are_parsed_without_an_exception(datagram: bytes) -> None:
    list(parse_stations(datagram))


@given(st.integers(0, len(message())))
def test_a_cut_message_tells_nothing_wrong(length: int) -> None:
    for station in parse_stations(message()[:length]):
        assert station == StationHeard(MAC, 5)
