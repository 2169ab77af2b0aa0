"""Finds the link that carries the tunnel: it must not join the bridge that the tunnel serves.

Source: rtnetlink(7).
Blocking, one request per destination.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6

from pyroute2.netlink.rtnl import RTM_GETROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bridged.errors import ConfigurationError, NetlinkError
from bridged.link_planning.links import HostLinks
from bridged.link_planning.wishes import BridgeWish, Ownership
from bridged.netlink.host_values import Names
from bridged.netlink.observe import default_routes, holders, link_named, observe
from bridged.netlink.route_socket import RouteSocket

_ROUTE_LOCAL = 2
_PPPOE_SESSIONS = Path("/proc/self/net/pppoe")
_SOMEWHERE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}
"""For a socket that listens everywhere: a documentation address, which the default route leads to."""
_STANDS_ON_ANOTHER = frozenset({"vlan", "macvlan", "ipvlan"})
_TAKES_THE_FRAMES = frozenset({"macvlan", "macvtap", "ipvlan", "ipvtap"})
"""Links that stop working when the link below joins a bridge. A VLAN gets its frames before the bridge."""


def check_ports(
    kernel: RouteSocket,
    wish: BridgeWish,
    destinations: Collection[str],
    ownership: Ownership | None = None,
    observed: HostLinks | None = None,
) -> None:
    """Refuse ports that carry the tunnel itself.

    `destinations`: IP addresses of the remotes, of the sockets we listen on, or `0.0.0.0` and `::` for a
    server that listens everywhere (then the default route counts). Names are skipped: call again when their
    addresses are known. A port that was in the bridge before us is not refused: nothing changes for it.

    Raises:
        ConfigurationError: `carries_tunnel`.
        NetlinkError: the kernel did not answer.
    """
    refused = carrying_ports(kernel, wish, destinations, ownership, observed)
    for port, destination in refused.items():
        raise ConfigurationError(
            f"{port} cannot be a bridge port: it carries the tunnel itself (the route to {destination} "
            "leaves through it). Use another interface. If this host has only one, put it into the bridge in "
            "the network settings of your distribution; bridged then adopts that bridge",
            key=f"bridges.{wish.name}.ports",
            code="carries_tunnel",
        )


def carrying_ports(
    kernel: RouteSocket,
    wish: BridgeWish,
    destinations: Collection[str],
    ownership: Ownership | None = None,
    observed: HostLinks | None = None,
) -> dict[str, str]:
    """Ports of the wish that carry the tunnel, each with the destination that shows it."""
    ownership = ownership or Ownership()
    names = (wish.name, *wish.ports)
    observed = observed or observe(kernel, names, routes_by=names)
    found: dict[str, str] = {}
    for destination in destinations:
        for link, source in _routes_to(kernel, destination):
            port = _port_behind(kernel, observed, wish, ownership, link, source)
            if port is not None:
                found.setdefault(port, destination)
    return found


def links_towards(destinations: Collection[str]) -> list[str]:
    """The links that carry packets to or from `destinations` (as `check_ports` takes them); not loopback.

    Of a VLAN or macvlan the link below it, where the card's driver works. Asks for single routes, and reads
    no table.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    found: dict[str, None] = {}
    with RouteSocket() as kernel:
        for destination in destinations:
            for name, _ in _routes_to(kernel, _SOMEWHERE.get(destination, destination)):
                link = link_named(kernel, name)
                while link is not None and link.lower and link.kind in _STANDS_ON_ANOTHER:
                    name = link.lower
                    link = link_named(kernel, name)
                found[name] = None
    return [name for name in found if name != "lo"]


def _routes_to(kernel: RouteSocket, destination: str) -> Iterator[tuple[str, str | None]]:
    """(link, our address on it or else the gateway) for packets to or from `destination`."""
    try:
        address = ipaddress.ip_address(destination.partition("%")[0])
    except ValueError:
        return
    zone = destination.partition("%")[2]
    if zone:
        yield zone, None
        return
    if address.is_unspecified:
        yield from _default_links(kernel, address.version)
        return
    owners = holders(kernel, str(address))
    if owners:
        yield from ((owner, str(address)) for owner in owners)
        return
    request = rtmsg()
    request["family"] = AF_INET6 if address.version == 6 else AF_INET
    request["dst_len"] = address.max_prefixlen
    request["attrs"] = [("RTA_DST", str(address))]
    try:
        answer = kernel.get(request, RTM_GETROUTE, operation="look up route", link=destination)
    except NetlinkError:
        # No route there, for now.
        return
    if answer is not None and answer["type"] != _ROUTE_LOCAL:
        name = Names()[answer.get_attr("RTA_OIF") or 0]
        if name:
            yield name, answer.get_attr("RTA_PREFSRC")


def _default_links(kernel: RouteSocket, version: int) -> Iterator[tuple[str, str | None]]:
    """The links of the best default route of the main table."""
    family = AF_INET6 if version == 6 else AF_INET
    defaults = default_routes(kernel, family)
    best = min((route.metric for route in defaults), default=None)
    for route in defaults:
        if route.metric == best:
            for link in route.links:
                yield link, route.preferred_source or route.gateway


def _port_behind(
    kernel: RouteSocket,
    observed: HostLinks,
    wish: BridgeWish,
    ownership: Ownership,
    link: str,
    hint: str | None,
) -> str | None:
    """The port of the wish that `link` is, stands on, or got its routes from."""
    for name in _stack(kernel, link):
        if name in wish.ports:
            before = ownership.before(name) or observed.link(name)
            was_member = before is not None and before.master == wish.name
            return None if was_member else name
    if link == wish.name and hint is not None:
        # After the hand-over the route leads through the bridge, but the port still carries the tunnel.
        near = ipaddress.ip_address(hint)
        for address in ownership.handed_over:
            if near in ipaddress.ip_interface(address.address).network and address.link in wish.ports:
                return address.link
        for route in ownership.routes:
            if route.gateway == hint and route.link in wish.ports:
                return route.link
    return None


def _stack(kernel: RouteSocket, name: str) -> Iterator[str]:
    """The link and those below it that it needs."""
    seen: set[str] = set()
    while name and name not in seen:
        seen.add(name)
        yield name
        link = link_named(kernel, name)
        if link is None:
            return
        if link.kind in _TAKES_THE_FRAMES and link.lower:
            name = link.lower
        elif link.kind == "ppp" or name.startswith("ppp"):
            name = _pppoe_device()
        else:
            return


def _pppoe_device() -> str:
    """The Ethernet link under a PPPoE session; empty without one, or where there are several."""
    try:
        rows = [line.split() for line in _PPPOE_SESSIONS.read_text().splitlines()[1:]]
    except OSError:
        return ""
    devices = {row[2] for row in rows if len(row) == 3}
    return devices.pop() if len(devices) == 1 else ""
