"""VLANs of bridge ports: read from the kernel, and set.

Source: bridge(8); Linux `if_bridge.h` (IFLA_BRIDGE_VLAN_INFO), `rtnetlink.h` (RTEXT_FILTER_*).
Blocking, one dump; only VLAN-aware bridges are asked about.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from socket import AF_BRIDGE
from typing import Any, Final

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETLINK, RTM_SETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from bridged.link_planning.vlans import Flags, VlanRange, changes, ranges
from bridged.netlink.multicast import attributes
from bridged.netlink.route_socket import RouteSocket

FILTER_COMPRESSED: Final = 4
FLAG_PVID: Final = 0x02
FLAG_UNTAGGED: Final = 0x04
FLAG_RANGE_BEGIN: Final = 0x08
FLAG_RANGE_END: Final = 0x10
_IFLA_AF_SPEC: Final = 26
_IFLA_BRIDGE_VLAN_INFO: Final = 2
_VLAN_INFO: Final = struct.Struct("=HH")
_INDEX: Final = struct.Struct("=i")
_INDEX_OFFSET: Final = 20
_ATTRIBUTES_OFFSET: Final = 32
"""Both of a link message, header included."""


def port_vlans(kernel: RouteSocket, indices: Collection[int]) -> dict[int, tuple[VlanRange, ...]]:
    """Port (index) -> its VLANs, for those of `indices` that the kernel reports.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    request = ifinfmsg()
    request["family"] = AF_BRIDGE
    request["attrs"] = [("IFLA_EXT_MASK", FILTER_COMPRESSED)]
    found = {}
    for message in kernel.dump_undecoded(request, RTM_GETLINK):
        (index,) = _INDEX.unpack_from(message, _INDEX_OFFSET)
        if index in indices:
            found[index] = parse_port_vlans(message)
    return found


def parse_port_vlans(message: bytes) -> tuple[VlanRange, ...]:
    """The VLANs in one link message of the bridge family (header first)."""
    members: dict[int, Flags] = {}
    begin = 0
    for kind, value in attributes(message, _ATTRIBUTES_OFFSET):
        if kind != _IFLA_AF_SPEC:
            continue
        for inner, octets in attributes(value, 0):
            if inner != _IFLA_BRIDGE_VLAN_INFO or len(octets) != _VLAN_INFO.size:
                continue
            flags, vlan = _VLAN_INFO.unpack(octets)
            if flags & FLAG_RANGE_BEGIN:
                begin = vlan
                continue
            first = begin if flags & FLAG_RANGE_END else vlan
            for number in range(first, vlan + 1):
                members[number] = bool(flags & FLAG_PVID), bool(flags & FLAG_UNTAGGED)
    return ranges(members)


def set_port_vlans(
    kernel: RouteSocket,
    link: str,
    index: int,
    was: tuple[VlanRange, ...],
    wished: tuple[VlanRange, ...],
) -> None:
    """Give a port `wished` instead of `was`. Adds first, so the port is never without its PVID.

    Raises:
        NetlinkError: the kernel refused; part of it may be done.
    """
    to_set, to_remove = changes(was, wished)
    for message_type, parts in ((RTM_SETLINK, to_set), (RTM_DELLINK, to_remove)):
        if parts:
            message = _message(index, parts)
            kernel.request(message, message_type, 0, operation="set VLANs", link=link)


def _message(index: int, parts: Iterable[VlanRange]) -> Any:
    rows = []
    for part in parts:
        flags = FLAG_PVID * part.pvid | FLAG_UNTAGGED * part.untagged
        if part.first == part.last:
            rows.append((flags, part.first))
        else:
            rows.append((flags | FLAG_RANGE_BEGIN, part.first))
            rows.append((flags | FLAG_RANGE_END, part.last))
    message = ifinfmsg()
    message["family"] = AF_BRIDGE
    message["index"] = index
    infos = [("IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": vlan}) for flags, vlan in rows]
    message["attrs"] = [("IFLA_AF_SPEC", {"attrs": infos})]
    return message
