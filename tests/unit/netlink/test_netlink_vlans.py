"""VLANs of ports as the kernel's messages have them (if_bridge.h), both ways."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridged.link_planning.vlans import VlanRange, ranges
from bridged.netlink import vlans

SETLINK, DELLINK = 19, 17
PVID, UNTAGGED, BEGIN, END = 2, 4, 8, 16


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link_message(index: int, *infos: tuple[int, int]) -> bytes:
    """A port of the bridge family: its name, then its VLANs as (flags, id)."""
    inside = b"".join(attribute(2, struct.pack("=HH", flags, vlan)) for flags, vlan in infos)
    body = (
        struct.pack("=BxHiII", 7, 1, index, 0, 0) + attribute(3, b"eth1\0") + attribute(26 | 0x8000, inside)
    )
    return struct.pack("=IHHII", 16 + len(body), 16, 0, 0, 0) + body


class Kernel:
    """Takes requests, and answers one dump."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = messages
        self.sent: list[tuple[int, bytes]] = []

    def dump_undecoded(self, message: Any, message_type: int) -> list[bytes]:
        message.reset()
        message.encode()
        assert bytes(message.data)[16] == 7 and attribute(29, struct.pack("=I", 4)) in bytes(message.data)
        return list(self.messages)

    def request(self, message: Any, message_type: int, flags: int, *, operation: str, link: str) -> None:
        message.reset()
        message.encode()
        self.sent.append((message_type, bytes(message.data)))


def test_vlans_of_the_asked_ports_are_read_with_ranges_and_flags() -> None:
    infos = ((PVID | UNTAGGED, 1), (BEGIN, 20), (END, 29), (BEGIN | UNTAGGED, 40), (END | UNTAGGED, 41))
    kernel = Kernel(link_message(5, *infos), link_message(6, (0, 7)), link_message(8))
    assert vlans.port_vlans(kernel, {5, 8}) == {
        5: (VlanRange(1, 1, True, True), VlanRange(20, 29), VlanRange(40, 41, untagged=True)),
        8: (),
    }


def test_new_vlans_are_set_before_old_ones_are_removed_and_ranges_stay_ranges() -> None:
    kernel = Kernel()
    was = (VlanRange(1, 1, True, True),)
    vlans.set_port_vlans(kernel, "tap0", 5, was, (VlanRange(5, 5, True, True), VlanRange(20, 29)))
    (first, setting), (second, removal) = kernel.sent
    assert (first, second) == (SETLINK, DELLINK)
    assert setting[16] == 7 and struct.unpack_from("=i", setting, 20) == (5,)
    assert vlans.parse_port_vlans(setting) == (VlanRange(5, 5, True, True), VlanRange(20, 29))
    flags = [
        attribute(2, struct.pack("=HH", *info)) for info in ((PVID | UNTAGGED, 5), (BEGIN, 20), (END, 29))
    ]
    assert b"".join(flags) in setting
    assert vlans.parse_port_vlans(removal) == was


def test_nothing_is_sent_where_nothing_changes() -> None:
    kernel = Kernel()
    vlans.set_port_vlans(kernel, "tap0", 5, (VlanRange(20, 29),), (VlanRange(20, 29),))
    assert kernel.sent == []


@given(st.dictionaries(st.integers(1, 4094), st.just((False, False)), min_size=1, max_size=50))
def test_what_is_sent_is_what_would_be_read(found: dict[int, tuple[bool, bool]]) -> None:
    kernel = Kernel()
    vlans.set_port_vlans(kernel, "tap0", 5, (), ranges(found))
    assert vlans.parse_port_vlans(kernel.sent[0][1]) == ranges(found)


@given(st.binary(max_size=300))
def test_any_octets_are_read_without_an_exception(octets: bytes) -> None:
    vlans.parse_port_vlans(octets)
