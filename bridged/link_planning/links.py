"""The host's links, addresses and routes as plain values.

Source: rtnetlink(7); Linux `if_link.h` and `if_addr.h` for what the kernel keeps per link and address.
Pure: `netlink` fills these in; deadlines are readings of the caller's monotonic clock.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from bridged.addresses import MacAddress
from bridged.link_planning.vlans import VlanRange

ADDRESS_PROTOCOL_RA = 2
"""Address protocol of what the kernel made after a router's advertisement (IFAPROT_KERNEL_RA)."""
PROTOCOL_RA = 9
"""Route protocol of what the kernel learned from a router's advertisement."""
RA_COPY_METRIC = 1
"""How much higher the metric of our copy of such a route is."""
PROTOCOL_KERNEL = 2
"""Route protocol of what the kernel derives from an address by itself."""
LOCAL_TABLE = 255
SCOPE_LINK = 253
MULTICAST_ROUTER_ALWAYS = 2
"""Bridge port setting: all multicast goes out of it, whatever snooping has learned."""


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """Settings of a bridge. Times in seconds; the kernel rounds them to 10 ms.

    `group_forward_mask`: bit n lets frames to 01:80:c2:00:00:0n pass (bit 14: LLDP).
    """

    stp: bool = False
    ageing_seconds: float = 300.0
    forward_delay_seconds: float = 15.0
    multicast_snooping: bool = True
    group_forward_mask: int = 0


@dataclass(frozen=True, slots=True)
class Inet6Settings:
    """How a link treats routers' advertisements; values as in `net.ipv6.conf.LINK`."""

    accept_ra: int = 1
    accept_ra_defrtr: int = 1
    accept_ra_pinfo: int = 1
    autoconf: int = 1
    use_tempaddr: int = 0
    forwarding: int = 0
    ra_defrtr_metric: int = 1024


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface.

    `master`: the bridge or bond it belongs to. `lower`: the link it is on top of (VLAN, macvlan). `bridge` is
    None unless it is a bridge, `multicast_router` unless it is a bridge port, `vlans` unless it is a port of
    a VLAN-aware bridge, `inet6` unless it was asked for.
    """

    name: str
    index: int
    kind: str = ""
    mac: MacAddress | None = None
    mtu: int = 1500
    up: bool = False
    carrier: bool = False
    master: str | None = None
    ethernet: bool = True
    loopback: bool = False
    lower: str | None = None
    queue_frames: int = 1000
    bridge: BridgeSettings | None = None
    multicast_router: int | None = None
    vlans: tuple[VlanRange, ...] | None = None
    inet6: Inet6Settings | None = None


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An IP address on a link, with everything needed to add it again elsewhere.

    `address` is text with prefix length. Deadlines are monotonic seconds (None: forever) and not compared.
    `metric` is that of the connected route (None: the kernel's default).
    """

    link: str
    address: str
    peer: str | None = None
    broadcast: str | None = None
    label: str | None = None
    scope: int = 0
    flags: int = 0
    metric: int | None = None
    protocol: int = 0
    valid_until: float | None = field(default=None, compare=False)
    preferred_until: float | None = field(default=None, compare=False)

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.address

    @property
    def is_kernels(self) -> bool:
        """The kernel made it after an advertisement, and renews it on a link that receives them."""
        return self.is_ipv6 and self.protocol == ADDRESS_PROTOCOL_RA

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]

    @property
    def key(self) -> tuple[str, str]:
        """What distinguishes addresses of one link for the kernel (IPv4: also the prefix length)."""
        return self.address, self.peer or ""

    def on(self, link: str) -> HostAddress:
        """The same address on another link; the label of an IPv4 address follows the link's name."""
        label = self.label
        if label is not None:
            rest = label[len(self.link) :] if label.startswith(self.link) else ""
            label = (link + rest)[:15]
        return replace(self, link=link, label=label)

    def has_expired(self, now: float) -> bool:
        return self.valid_until is not None and self.valid_until <= now


@dataclass(frozen=True, slots=True)
class NextHop:
    """One path of a multipath route. `weight` from 1."""

    link: str
    gateway: str | None = None
    weight: int = 1
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route. `destination` is text with prefix length; a multipath route has `nexthops` and no `link`.

    `metrics`: pairs of kernel metric name and value (`RTAX_MTU`, 1400). `nexthop_object`: id of a kernel
    nexthop object, which belongs to its own link and does not move. `expires_at`: monotonic seconds.
    """

    family: int
    destination: str
    link: str = ""
    gateway: str | None = None
    metric: int = 0
    table: int = 254
    protocol: int = 3
    scope: int = 0
    kind: int = 1
    tos: int = 0
    source: str | None = None
    preferred_source: str | None = None
    onlink: bool = False
    preference: int = 0
    metrics: tuple[tuple[str, int], ...] = ()
    nexthops: tuple[NextHop, ...] = ()
    nexthop_object: int | None = None
    expires_at: float | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[object, ...]:
        """What distinguishes routes of a table."""
        return (
            *(self.family, self.table, self.destination, self.source, self.tos, self.metric),
            *(self.link, self.gateway, tuple(sorted((hop.link, hop.gateway or "") for hop in self.nexthops))),
        )

    @property
    def is_kernels(self) -> bool:
        """The kernel learned it from an advertisement, and renews it unless another has the same metric."""
        return self.protocol == PROTOCOL_RA

    def copied(self) -> HostRoute:
        """A copy with a higher metric, which serves until the kernel's own comes with an advertisement."""
        return replace(self, metric=self.metric + RA_COPY_METRIC)

    @property
    def links(self) -> frozenset[str]:
        return frozenset(hop.link for hop in self.nexthops) or frozenset((self.link,))

    def moved(self, old: str, new: str) -> HostRoute:
        """The same route with link `new` in place of `old`."""
        hops = tuple(replace(hop, link=new) if hop.link == old else hop for hop in self.nexthops)
        link = new if self.link == old else self.link
        return replace(self, link=link, nexthops=hops, nexthop_object=None)

    def has_expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class HostLinks:
    """Links, addresses and routes at the moment `now` (monotonic seconds), in the kernel's order."""

    links: tuple[Link, ...] = ()
    addresses: tuple[HostAddress, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    now: float = 0.0

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)

    def addresses_of(self, link: str) -> Iterator[HostAddress]:
        """In the order in which to add them again to get the same order.

        The kernel appends IPv4 addresses, and puts each IPv6 address before the older ones.
        """
        ours = [address for address in self.addresses if address.link == link]
        yield from (address for address in ours if not address.is_ipv6)
        yield from reversed([address for address in ours if address.is_ipv6])

    def ipv6_of(self, link: str) -> tuple[HostAddress, ...]:
        """IPv6 addresses that a link loses when it goes down and does not regain by itself."""
        return tuple(
            address for address in self.addresses_of(link) if address.is_ipv6 and not is_link_local(address)
        )


def canonical_address(text: str) -> str:
    """An address with prefix length in the form in which addresses are compared."""
    return str(ipaddress.ip_interface(text))


def is_link_local(address: HostAddress) -> bool:
    """IPv6 link-local addresses belong to their link and never move."""
    return address.is_ipv6 and address.scope == SCOPE_LINK


def routes_by(routes: Iterable[HostRoute], link: str) -> Iterator[HostRoute]:
    """Routes by `link` that can be moved, those without gateway first: the others need them."""
    movable = [
        route
        for route in routes
        if link in route.links and route.protocol != PROTOCOL_KERNEL and route.table != LOCAL_TABLE
    ]
    yield from sorted(movable, key=lambda route: route.gateway is not None or bool(route.nexthops))
