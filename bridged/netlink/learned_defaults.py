"""Keeps default routes that the kernel learned from routers, where it is about to forget them.

As soon as any link begins to forward, the kernel forgets those of all links that are hosts (accept_ra 1).
Routers tell it again by themselves within minutes only, so copies serve until they have been asked.

Source: Linux net/ipv6/addrconf.c, addrconf_fixup_forwarding; net/ipv6/route.c, rt6_purge_dflt_routers.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from socket import AF_INET6
from typing import Final

from bridged.errors import NetlinkError
from bridged.link_planning.actions import AddRoute, SetInet6
from bridged.link_planning.links import RA_COPY_METRIC, HostRoute, Link
from bridged.netlink.inet6 import inet6_settings, solicit_routers
from bridged.netlink.observe import default_routes, link_named
from bridged.netlink.perform_ip import add_route
from bridged.netlink.route_socket import RouteSocket

COPY_SECONDS: Final = 60.0
"""How long a copy serves at most: a router that was asked answers within seconds (RFC 4861, 6.2.6)."""
_ACCEPT_THOUGH_FORWARDING: Final = 2


@contextmanager
def learned_defaults_kept(kernel: RouteSocket, action: SetInet6) -> Iterator[None]:
    """`action`, by which a link begins to forward, is done inside; routers are asked afterwards.

    Best effort: other links must not keep a bridge from its settings.

    Raises:
        NetlinkError: the kernel did not answer.
    """
    present = default_routes(kernel, AF_INET6)
    forgotten = [route for route in present if _is_forgotten(route, action)]
    links = {route.link: link_named(kernel, route.link) for route in forgotten}
    taken = {route.metric for route in present}
    for route in forgotten:
        copy = _copy(route, links[route.link], taken)
        taken.add(copy.metric)
        with suppress(NetlinkError):
            add_route(kernel, AddRoute(copy))
    try:
        yield
    finally:
        for link in links.values():
            if link is not None:
                solicit_routers(link)


def _is_forgotten(route: HostRoute, action: SetInet6) -> bool:
    """Not copies: they have another metric than the kernel's own."""
    if not route.is_kernels or route.has_expired(time.monotonic()):
        return False
    settings = inet6_settings(route.link)
    if settings is None:
        return False
    # What a link accepts is written before it begins to forward.
    accept_ra = action.value.accept_ra if route.link == action.link else settings.accept_ra
    return accept_ra != _ACCEPT_THOUGH_FORWARDING and settings.ra_defrtr_metric == route.metric


def _copy(route: HostRoute, link: Link | None, taken: Collection[int]) -> HostRoute:
    """A copy with a metric of its own: of routes with one metric the kernel makes one multipath route."""
    first = route.metric + RA_COPY_METRIC + 1
    metric = next(number for number in count(first) if number not in taken)
    if link is None or link.mac is None:
        return replace(route, metric=metric)  # nobody can be asked there
    until = time.monotonic() + COPY_SECONDS
    return replace(route, metric=metric, expires_at=min(until, route.expires_at or until))
