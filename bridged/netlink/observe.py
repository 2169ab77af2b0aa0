"""From the kernel's dumps of links, addresses and routes to the values of `link_planning.links`.

Source: rtnetlink(7), Linux `if_link.h`, `if_addr.h`, `rtnetlink.h`.
Blocking: a few requests for each link of interest, on one socket; some milliseconds.
"""

from __future__ import annotations

import errno
import ipaddress
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from socket import AF_INET, AF_INET6, if_indextoname
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bridged.addresses import MacAddress
from bridged.errors import NetlinkError
from bridged.link_planning.links import (
    LOCAL_TABLE,
    BridgeSettings,
    HostAddress,
    HostLinks,
    HostRoute,
    Link,
    NextHop,
)
from bridged.link_planning.vlans import VlanRange
from bridged.netlink.inet6 import inet6_settings
from bridged.netlink.multicast import attributes
from bridged.netlink.route_socket import RouteSocket
from bridged.netlink.vlans import port_vlans

MAIN_TABLE = 254
IFF_UP = 1
IFF_LOOPBACK = 8
ARPHRD_ETHER = 1
EXTENSION_SKIP_STATISTICS = 8
CENTISECONDS = 100.0
FOR_EVER = 0xFFFFFFFF
ADDRESS_FLAGS_KEPT = 0x02 | 0x10 | 0x100 | 0x200 | 0x400
"""No duplicate detection, home address, manage-temporary, no-prefix-route, multicast autojoin: these are set
from outside; the others are state."""
ROUTE_KINDS_MOVED = frozenset({1})
"""Unicast. Local, broadcast, multicast and anycast routes are the kernel's own."""
ROUTE_ONLINK = 4
_NO_SUCH_LINK = frozenset({errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.ERANGE})
"""EINVAL, ERANGE: the kernel has no links of such a name."""
_LINK_ATTRIBUTES_OFFSET = 32
_IFLA_ADDRESS = 1
MAC_OCTETS = 6
_ROUTE_PREFIX_OCTET = 17
"""Of a route message: where the length of its destination's prefix stands, header included."""
STACKED_KINDS = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"})


def observe(kernel: RouteSocket, names: Collection[str], *, routes_by: Collection[str] = ()) -> HostLinks:
    """The links `names` and the ports of those that are bridges, with the addresses of all of them.

    Routes are those by `routes_by`, some of `names`. Each is asked for by itself, and the kernel sorts
    the rest out: thousands of other links, and millions of other routes, cost nothing here.

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
                route = _route(raw, known, now)
                if route is not None:
                    # A multipath route comes once for each of its links.
                    routes.setdefault(route.key, route)
    return HostLinks(
        tuple(
            replace(
                _link(found[index], known, vlans.get(index)),
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
    return None if raw is None else _link(raw, Names())


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
    # Decoding is what takes time: only what has the octets somewhere in it.
    rows = kernel.dump(request, RTM_GETADDR, lambda message: packed in message)
    found = [_address(raw, known, now) for raw in rows]
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
    found = [_route(raw, known, now) for raw in rows]
    return [
        route
        for route in found
        if route is not None and route.table == MAIN_TABLE and route.destination.endswith("/0")
    ]


class Names(dict[int, str]):
    """Link names by index, asked of the kernel where they are not known yet; empty where there is no link."""

    def __missing__(self, index: int) -> str:
        try:
            name = self[index] = if_indextoname(index)
        except OSError:
            name = self[index] = ""
        return name


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
    info = bridge.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "bridge":
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
            address = _address(raw, names, now)
            if address is not None:
                yield address


def _routes(kernel: RouteSocket, family: int, index: int) -> list[Any]:
    # Asked for all families at once, the kernel ends after the first.
    request = rtmsg()
    request["family"] = family
    request["attrs"] = [("RTA_OIF", index)]
    return kernel.dump(request, RTM_GETROUTE)


def _is_vlan_aware(bridge: Any) -> bool:
    info = bridge.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "bridge":
        return False
    return bool(info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_BR_VLAN_FILTERING"))


def _link(raw: Any, names: Names, vlans: tuple[VlanRange, ...] | None = None) -> Link:
    info = raw.get_attr("IFLA_LINKINFO")
    kind = str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""
    data = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    port = info.get_attr("IFLA_INFO_SLAVE_DATA") if info is not None else None
    in_bridge = info is not None and info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge"
    lower = raw.get_attr("IFLA_LINK") if kind in STACKED_KINDS else None
    mac = str(raw.get_attr("IFLA_ADDRESS") or "")
    master = raw.get_attr("IFLA_MASTER")
    ethernet = raw["ifi_type"] == ARPHRD_ETHER
    return Link(
        name=str(raw.get_attr("IFLA_IFNAME")),
        index=raw["index"],
        kind=kind,
        mac=MacAddress.parse(mac) if ethernet and len(mac) == 17 else None,
        mtu=raw.get_attr("IFLA_MTU"),
        up=bool(raw["flags"] & IFF_UP),
        carrier=bool(raw.get_attr("IFLA_CARRIER")),
        master=(names[master] or f"index {master}") if master else None,
        ethernet=ethernet,
        loopback=bool(raw["flags"] & IFF_LOOPBACK),
        lower=(names[lower] or None) if lower else None,
        queue_frames=raw.get_attr("IFLA_TXQLEN") or 0,
        bridge=_settings(data) if kind == "bridge" and data is not None else None,
        multicast_router=port.get_attr("IFLA_BRPORT_MULTICAST_ROUTER") if in_bridge and port else None,
        vlans=vlans if in_bridge else None,
    )


def _settings(data: Any) -> BridgeSettings:
    return BridgeSettings(
        stp=bool(data.get_attr("IFLA_BR_STP_STATE")),
        ageing_seconds=data.get_attr("IFLA_BR_AGEING_TIME") / CENTISECONDS,
        forward_delay_seconds=data.get_attr("IFLA_BR_FORWARD_DELAY") / CENTISECONDS,
        multicast_snooping=bool(data.get_attr("IFLA_BR_MCAST_SNOOPING")),
        group_forward_mask=data.get_attr("IFLA_BR_GROUP_FWD_MASK") or 0,
    )


def _until(seconds: int, now: float) -> float | None:
    return None if seconds == FOR_EVER else now + seconds


def _address(raw: Any, names: Names, now: float) -> HostAddress | None:
    link = names[raw["index"]]
    local = raw.get_attr("IFA_LOCAL") or raw.get_attr("IFA_ADDRESS")
    if not link or local is None:
        return None
    peer = raw.get_attr("IFA_ADDRESS")
    flags = raw.get_attr("IFA_FLAGS")
    lifetimes = raw.get_attr("IFA_CACHEINFO") or {}
    return HostAddress(
        link=link,
        address=str(ipaddress.ip_interface(f"{local}/{raw['prefixlen']}")),
        peer=str(peer) if peer not in (None, local) else None,
        broadcast=raw.get_attr("IFA_BROADCAST"),
        label=raw.get_attr("IFA_LABEL"),
        scope=raw["scope"],
        flags=(raw["flags"] if flags is None else flags) & ADDRESS_FLAGS_KEPT,
        metric=raw.get_attr("IFA_RT_PRIORITY"),
        protocol=raw.get_attr("IFA_PROTO") or 0,
        valid_until=_until(lifetimes.get("ifa_valid", FOR_EVER), now),
        preferred_until=_until(lifetimes.get("ifa_preferred", FOR_EVER), now),
    )


def _route(raw: Any, names: Names, now: float) -> HostRoute | None:
    family = raw["family"]
    table = raw.get_attr("RTA_TABLE") or raw["table"]
    if (
        family not in (AF_INET, AF_INET6)
        or raw["type"] not in ROUTE_KINDS_MOVED
        or table == LOCAL_TABLE
        or raw.get_attr("RTA_ENCAP_TYPE")
    ):
        return None
    hops = tuple(_hop(hop, names) for hop in raw.get_attr("RTA_MULTIPATH") or ())
    interface = raw.get_attr("RTA_OIF")
    link = names[interface] if interface else ""
    if not link and not hops:
        return None
    whole = "0.0.0.0" if family == AF_INET else "::"
    cache = raw.get_attr("RTA_CACHEINFO") or {}
    expires = cache.get("rta_expires", 0)
    source = raw.get_attr("RTA_SRC")
    return HostRoute(
        family=family,
        destination=f"{raw.get_attr('RTA_DST') or whole}/{raw['dst_len']}",
        link="" if hops else link,
        gateway=_gateway(raw),
        metric=raw.get_attr("RTA_PRIORITY") or 0,
        table=table,
        protocol=raw["proto"],
        scope=raw["scope"],
        kind=raw["type"],
        tos=raw["tos"],
        source=f"{source}/{raw['src_len']}" if source else None,
        preferred_source=raw.get_attr("RTA_PREFSRC"),
        onlink=bool(raw["flags"] & ROUTE_ONLINK),
        preference=_preference(raw.get_attr("RTA_PREF")),
        metrics=_metrics(raw.get_attr("RTA_METRICS")),
        nexthops=hops,
        nexthop_object=raw.get_attr("RTA_NH_ID"),
        # In clock ticks (USER_HZ, 100), and negative once it is over.
        expires_at=now + expires / CENTISECONDS if expires else None,
    )


def _gateway(raw: Any) -> str | None:
    """The gateway; of the other family where the route says so (`via inet6 …`)."""
    via = raw.get_attr("RTA_VIA")
    gateway = via.get("addr") if via is not None else raw.get_attr("RTA_GATEWAY")
    return str(gateway) if gateway else None


def _hop(raw: Any, names: Names) -> NextHop:
    return NextHop(
        link=names[raw["oif"]],
        gateway=_gateway(raw),
        weight=raw["hops"] + 1,
        onlink=bool(raw["flags"] & ROUTE_ONLINK),
    )


def _preference(raw: Any) -> int:
    """Router preference: 0 medium, 1 high, 3 low."""
    return int(raw, 16) if isinstance(raw, str) else int(raw or 0)


def _metrics(raw: Any) -> tuple[tuple[str, int], ...]:
    if raw is None:
        return ()
    return tuple((name, value) for name, value in raw["attrs"] if isinstance(value, int))
