"""Looks at the host: links, addresses and routes, as values of `link_planning.links`.

Source: rtnetlink(7), Linux `if_link.h`, `if_addr.h`, `rtnetlink.h`.
Blocking: a few requests for each link of interest, on one socket; some milliseconds.
"""

from __future__ import annotations

import errno
import ipaddress
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bridged.addresses import MacAddress
from bridged.errors import NetlinkError
from bridged.link_planning.links import HostAddress, HostLinks, HostRoute, Link
from bridged.netlink.host_values import Names, parse_address, parse_link, parse_route
from bridged.netlink.inet6 import inet6_settings
from bridged.netlink.multicast import attributes
from bridged.netlink.route_socket import RouteSocket
from bridged.netlink.vlans import port_vlans

MAIN_TABLE = 254
EXTENSION_SKIP_STATISTICS = 8
_NO_SUCH_LINK = frozenset({errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.ERANGE})
"""EINVAL, ERANGE: the kernel has no links of such a name."""
_LINK_ATTRIBUTES_OFFSET = 32
_IFLA_ADDRESS = 1
MAC_OCTETS = 6
_ROUTE_PREFIX_OCTET = 17
"""Of a route message: where the length of its destination's prefix stands, header included."""


def observe(kernel: RouteSocket, names: Collection[str], *, routes_by: Collection[str] = ()) -> HostLinks:
    """The links `names`, the ports of those that are bridges, and the addresses of all of them.

    Includes the routes by `routes_by`, which are some of `names`. Each object is queried by itself and the
    kernel filters, so thousands of other links and millions of other routes cost nothing.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    found: dict[int, Any] = {}
    for name in names:
        raw = _link_named(kernel, name)
        if raw is not None:
            found[raw["index"]] = raw
    wished = list(found)
    for index in wished:
        for raw in _ports_of(kernel, found[index]):
            found.setdefault(raw["index"], raw)
    vlans = port_vlans(kernel, found) if any(map(_is_vlan_aware, found.values())) else {}
    known = Names({index: str(raw.get_attr("IFLA_IFNAME")) for index, raw in found.items()})
    now = time.monotonic()
    addresses = [address for index in found for address in _addresses(kernel, index, known, now)]
    routes: dict[tuple[object, ...], HostRoute] = {}
    for family in (AF_INET, AF_INET6):
        for index in (index for index in wished if known[index] in routes_by):
            for raw in _routes(kernel, family, index):
                route = parse_route(raw, known, now)
                if route is not None:
                    # A multipath route comes once for each of its links.
                    routes.setdefault(route.key, route)
    return HostLinks(
        tuple(
            replace(
                parse_link(found[index], known, vlans.get(index)),
                inet6=inet6_settings(known[index]) if known[index] in routes_by else None,
            )
            for index in sorted(found)
        ),
        tuple(addresses),
        tuple(routes.values()),
        now,
    )


def link_named(kernel: RouteSocket, name: str) -> Link | None:
    """One link.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    raw = _link_named(kernel, name)
    return None if raw is None else parse_link(raw, Names())


def all_macs(kernel: RouteSocket) -> set[MacAddress]:
    """The addresses of all links.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    request = ifinfmsg()
    request["attrs"] = [("IFLA_EXT_MASK", EXTENSION_SKIP_STATISTICS)]
    found = set()
    for message in kernel.dump_undecoded(request, RTM_GETLINK):
        for kind, value in attributes(message, _LINK_ATTRIBUTES_OFFSET):
            if kind == _IFLA_ADDRESS and len(value) == MAC_OCTETS:
                found.add(MacAddress(value))
    return found


def holders(kernel: RouteSocket, ip: str) -> list[str]:
    """The links that have this IP address.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    packed, known, now = ipaddress.ip_address(ip).packed, Names(), time.monotonic()
    family = AF_INET6 if len(packed) == 16 else AF_INET
    request = ifaddrmsg()
    request["family"] = family
    # Decoding is what takes time: only what has the bytes somewhere in it.
    rows = kernel.dump(request, RTM_GETADDR, lambda message: packed in message)
    found = [parse_address(raw, known, now) for raw in rows]
    return [address.link for address in found if address is not None and address.ip == ip]


def default_routes(kernel: RouteSocket, family: int) -> list[HostRoute]:
    """The default routes of the main table.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    request = rtmsg()
    request["family"] = family
    request["attrs"] = [("RTA_TABLE", MAIN_TABLE)]
    known, now = Names(), time.monotonic()
    rows = kernel.dump(request, RTM_GETROUTE, lambda message: message[_ROUTE_PREFIX_OCTET] == 0)
    found = [parse_route(raw, known, now) for raw in rows]
    return [
        route
        for route in found
        if route is not None and route.table == MAIN_TABLE and route.destination.endswith("/0")
    ]


def _link_named(kernel: RouteSocket, name: str) -> Any:
    request = ifinfmsg()
    request["attrs"] = [("IFLA_IFNAME", name), ("IFLA_EXT_MASK", EXTENSION_SKIP_STATISTICS)]
    try:
        return kernel.get(request, RTM_GETLINK, operation="look at link", link=name)
    except NetlinkError as error:
        if error.number not in _NO_SUCH_LINK:
            raise
        return None


def _ports_of(kernel: RouteSocket, bridge: Any) -> list[Any]:
    if _bridge_info(bridge) is None:
        return []
    request = ifinfmsg()
    request["attrs"] = [("IFLA_MASTER", bridge["index"]), ("IFLA_EXT_MASK", EXTENSION_SKIP_STATISTICS)]
    return kernel.dump(request, RTM_GETLINK)


def _addresses(kernel: RouteSocket, index: int, names: Names, now: float) -> Iterator[HostAddress]:
    for family in (AF_INET, AF_INET6):
        request = ifaddrmsg()
        request["family"] = family
        request["index"] = index
        for raw in kernel.dump(request, RTM_GETADDR):
            address = parse_address(raw, names, now)
            if address is not None:
                yield address


def _routes(kernel: RouteSocket, family: int, index: int) -> list[Any]:
    # Asked for all families at once, the kernel ends after the first.
    request = rtmsg()
    request["family"] = family
    request["attrs"] = [("RTA_OIF", index)]
    return kernel.dump(request, RTM_GETROUTE)


def _is_vlan_aware(link: Any) -> bool:
    info = _bridge_info(link)
    return info is not None and bool(info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_BR_VLAN_FILTERING"))


def _bridge_info(link: Any) -> Any:
    """The bridge part of a link message; None for any other link."""
    info = link.get_attr("IFLA_LINKINFO")
    return info if info is not None and info.get_attr("IFLA_INFO_KIND") == "bridge" else None
