"""From the kernel's messages about links, addresses and routes to the values of `link_planning.links`.

Source: rtnetlink(7), Linux `if_link.h`, `if_addr.h`, `rtnetlink.h`.
Only names of links that are not known yet are asked of the kernel.
"""

from __future__ import annotations

import ipaddress
from socket import AF_INET, AF_INET6, if_indextoname
from typing import Any

from bridged.addresses import MacAddress
from bridged.link_planning.links import LOCAL_TABLE, BridgeSettings, HostAddress, HostRoute, Link, NextHop
from bridged.link_planning.vlans import VlanRange

IFF_UP = 1
IFF_LOOPBACK = 8
ARPHRD_ETHER = 1
CENTISECONDS = 100.0
FOR_EVER = 0xFFFFFFFF
ADDRESS_FLAGS_KEPT = 0x02 | 0x10 | 0x100 | 0x200 | 0x400
"""No duplicate detection, home address, manage-temporary, no-prefix-route, multicast autojoin: users set
these; the other flags are state."""
ROUTE_KINDS_MOVED = frozenset({1})
"""Unicast. Local, broadcast, multicast and anycast routes are the kernel's own."""
ROUTE_ONLINK = 4
STACKED_KINDS = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"})


class Names(dict[int, str]):
    """Link names by index; asks the kernel for unknown ones. Empty for a link that does not exist."""

    def __missing__(self, index: int) -> str:
        try:
            name = self[index] = if_indextoname(index)
        except OSError:
            name = self[index] = ""
        return name


def parse_link(raw: Any, names: Names, vlans: tuple[VlanRange, ...] | None = None) -> Link:
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


def parse_address(raw: Any, names: Names, now: float) -> HostAddress | None:
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


def parse_route(raw: Any, names: Names, now: float) -> HostRoute | None:
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
        # In clock ticks (USER_HZ, 100), and negative once expired.
        expires_at=now + expires / CENTISECONDS if expires else None,
    )


def _gateway(raw: Any) -> str | None:
    """The gateway, which may be of the other family (`via inet6 …`)."""
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
