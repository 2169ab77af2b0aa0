"""Stations of the kernel's bridges: those it has learned, those we hold, and those no peer may have.

Source: rtnetlink(7), bridge(8) (`fdb`), Linux `neighbour.h`.
Blocking, a few milliseconds.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection
from ipaddress import ip_address
from socket import AF_BRIDGE, AF_INET, AF_INET6, if_nametoindex
from typing import Any

from pyroute2.netlink.rtnl import RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH, RTM_SETLINK
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from bridged.addresses import MacAddress
from bridged.errors import NetlinkError
from bridged.netlink.fdb_watch import parse_stations
from bridged.netlink.observe import all_macs, observe
from bridged.netlink.perform_ip import GONE
from bridged.netlink.route_socket import NLM_F_CREATE, NLM_F_REPLACE, RouteSocket

DISABLED, FORWARDING = 0, 3
"""BR_STATE_* of a bridge port. Without spanning tree the kernel keeps only these two."""
_IFLA_PROTINFO = 12
NTF_MASTER = 0x04
NTF_STICKY = 0x40
NUD_NOARP = 0x40


def protected_stations(kernel: RouteSocket, bridge: str) -> set[MacAddress]:
    """Addresses that no peer may have in `bridge`: those of this host, and of gateways reached by it.

    Skips a gateway whose address the kernel does not know.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    found = all_macs(kernel)
    routes = observe(kernel, (bridge,), routes_by=(bridge,)).routes
    gateways = {route.gateway for route in routes if route.gateway is not None}
    gateways |= {
        hop.gateway for route in routes for hop in route.nexthops if hop.gateway and hop.link == bridge
    }
    if not gateways:
        return found
    octets = [ip_address(gateway).packed for gateway in gateways]
    for family in (AF_INET, AF_INET6):
        request = ndmsg()
        request["family"] = family
        rows = kernel.dump(
            request, RTM_GETNEIGH, lambda message: any(gateway in message for gateway in octets)
        )
        for entry in rows:
            text = entry.get_attr("NDA_LLADDR")
            if entry.get_attr("NDA_DST") in gateways and text and len(text) == 17:
                found.add(MacAddress.parse(text))
    return found


def learned(kernel: RouteSocket, ports: Collection[int]) -> list[tuple[MacAddress, int]]:
    """The stations that the kernel's bridges know behind these ports (indices): (address, port).

    Raises:
        NetlinkError: the kernel did not answer.
    """
    request = ndmsg()
    request["family"] = AF_BRIDGE
    found = kernel.dump_undecoded(request, RTM_GETNEIGH)
    stations = (station for message in found for station in parse_stations(message))
    return [(station.address, station.index) for station in stations if station.index in ports]


def hold(kernel: RouteSocket, mac: MacAddress, port: str) -> None:
    """Enter a station statically: frames from it on another port do not move it, and it does not age.

    For remote stations behind the TAP, while a promiscuous LAN port reflects our own frames. Replaces an
    entry that the bridge has learned. Ends with `release`, or when the port leaves the bridge.

    Raises:
        NetlinkError: the port is in no bridge, or gone.
    """
    message = _entry(mac, port, "hold station")
    message["state"] = NUD_NOARP
    message["flags"] = NTF_MASTER | NTF_STICKY
    kernel.request(
        message, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, operation=f"hold station {mac}", link=port
    )


def release(kernel: RouteSocket, mac: MacAddress, port: str) -> None:
    """Let the bridge learn the station's port again. Harmless where it is not held.

    Raises:
        NetlinkError: the kernel refused.
    """
    try:
        message = _entry(mac, port, "release station")
        message["flags"] = NTF_MASTER
        kernel.request(message, RTM_DELNEIGH, 0, operation=f"release station {mac}", link=port)
    except NetlinkError as error:
        if error.number not in GONE:
            raise


def set_blocked(kernel: RouteSocket, port: str, is_blocked: bool) -> None:
    """Block or unblock a bridge port, as spanning tree does: blocked, it sends and receives nothing.

    Raises:
        NetlinkError: it is not a port, it is down, or the bridge runs spanning tree itself.
    """
    state = DISABLED if is_blocked else FORWARDING
    operation = "block port" if is_blocked else "unblock port"
    try:
        index = if_nametoindex(port)
    except OSError:
        raise NetlinkError(operation, port, errno.ENODEV, "no such link") from None
    # Inside IFLA_LINKINFO the kernel would accept the state and reset it at once.
    body = struct.pack("=BxHiII", AF_BRIDGE, 0, index, 0, 0) + struct.pack(
        "=HHBxxx", 5, _IFLA_PROTINFO, state
    )
    kernel.request_octets(body, RTM_SETLINK, operation=operation, link=port)


def _entry(mac: MacAddress, port: str, operation: str) -> Any:
    message = ndmsg()
    message["family"] = AF_BRIDGE
    try:
        message["ifindex"] = if_nametoindex(port)
    except OSError:
        raise NetlinkError(operation, port, errno.ENODEV, "no such link") from None
    message["attrs"] = [("NDA_LLADDR", str(mac))]
    return message
