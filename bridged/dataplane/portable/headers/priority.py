"""The priority that a frame asks for in its own headers.

Source: IEEE 802.1Q-2022, 6.9.3; RFC 2474; RFC 4594 (voice is EF). Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridged.dataplane.portable.headers.segment import IPV4, IPV6, VLAN_TAGS, network_offset
from bridged.errors import DataplaneError

DSCP_OF_PCP: Final = (0, 8, 16, 24, 32, 46, 48, 56)
"""The class selector of the same number; for 5, which is voice, it is EF."""
Reader = Callable[[bytes], int]


def dscp_reader(priority: str) -> Reader | None:
    """The function that reads the DSCP (0..63) of the datagram that carries a frame; None for `off`.

    Raises:
        DataplaneError: `bad_setting`.
    """
    if priority == "off":
        return None
    if priority == "pcp":
        return dscp_of_tag
    if priority == "dscp":
        return dscp_of_ip
    raise DataplaneError("bad_setting", f"priority: {priority!r} is not off, pcp or dscp")


def dscp_of_tag(frame: bytes) -> int:
    """The DSCP for the priority bits of the first VLAN tag; 0 without a tag."""
    if frame[12:14] in VLAN_TAGS and len(frame) > 14:
        return DSCP_OF_PCP[frame[14] >> 5]
    return 0


def dscp_of_ip(frame: bytes) -> int:
    """The DSCP of the IP header, after at most two VLAN tags; 0 without an IP header."""
    at, ethertype = network_offset(frame)
    octets = frame[at : at + 2]
    if len(octets) < 2:
        return 0
    if ethertype == IPV4 and octets[0] >> 4 == 4:
        return octets[1] >> 2
    if ethertype == IPV6 and octets[0] >> 4 == 6:
        return int.from_bytes(octets, "big") >> 6 & 0x3F
    return 0
