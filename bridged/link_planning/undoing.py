"""The record of what we changed on the host for one bridge, and the plan that undoes it.

Pure: records are values; `HostLinks.now` is the time of the observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bridged.link_planning.actions import (
    Action,
    AddAddress,
    AddRoute,
    Attach,
    CreateBridge,
    DeleteAddress,
    DeleteBridge,
    DeleteRoute,
    Detach,
    SetInet6,
    SetMac,
    SetMtu,
    SetMulticastRouter,
    SetQueue,
    SetSettings,
    SetUp,
    SetVlans,
)
from bridged.link_planning.links import HostLinks, HostRoute, Link
from bridged.link_planning.wishes import Ownership


def recognise(ownership: Ownership, observed: HostLinks, bridge_name: str) -> Ownership:
    """The record, updated with whose bridge is there now: ours, or one that we adopt.

    A bridge that somebody made after ours (or the adopted one) was deleted is adopted, too.
    """
    bridge = observed.link(bridge_name)
    if bridge is None or bridge.bridge is None:
        return ownership
    if ownership.bridge_index == bridge.index:
        return ownership
    if ownership.bridge_made and ownership.bridge_index is None:
        return replace(ownership, bridge_index=bridge.index)
    return replace(
        ownership,
        bridge_made=False,
        bridge_before=bridge,
        bridge_index=bridge.index,
        mac_fixed=False,
        added=(),
        added_routes=(),
    )


def claim(
    ownership: Ownership, observed: HostLinks, actions: Sequence[Action], bridge_name: str
) -> Ownership:
    """The record after `actions`, planned from `observed`, were done.

    Keeps how each link was before we first touched it. A link that vanished and came back (another index) is
    a new one.
    """
    ownership = recognise(ownership, observed, bridge_name)
    for action in actions:
        match action:
            case CreateBridge():
                ownership = replace(
                    ownership,
                    bridge_made=True,
                    mac_fixed=True,
                    bridge_mac=action.mac,
                    bridge_before=None,
                    bridge_index=None,
                    added=(),
                    added_routes=(),
                )
            case AddAddress(address):
                others = tuple(old for old in ownership.added if old.key != address.key)
                ownership = replace(ownership, added=(*others, address))
            case AddRoute(route):
                known = tuple(old for old in ownership.added_routes if old.key != route.key)
                ownership = replace(ownership, added_routes=(*known, route))
            case DeleteAddress(address):
                others = tuple(
                    old for old in ownership.handed_over if (old.link, old.key) != (address.link, address.key)
                )
                # Addresses leave in reverse order; this puts the first one first again.
                ownership = replace(ownership, handed_over=(address, *others))
            case DeleteRoute(route) if route.links == {bridge_name}:
                others_added = tuple(old for old in ownership.added_routes if old.key != route.key)
                ownership = replace(ownership, added_routes=others_added)
            case DeleteRoute(route):
                known = tuple(old for old in ownership.routes if old.key != route.key)
                ownership = replace(ownership, routes=(*known, route))
            case SetMac():
                ownership = replace(ownership, mac_fixed=True)
            case SetMtu() | SetQueue() | SetUp() | Attach() | SetMulticastRouter() | SetVlans():
                if action.link != bridge_name:
                    ownership = _remember(ownership, observed.link(action.link))
            case _:
                pass
    return ownership


def _remember(ownership: Ownership, link: Link | None) -> Ownership:
    if link is None:
        return ownership
    known = ownership.before(link.name)
    if known is not None and known.index == link.index:
        return ownership
    others = tuple(other for other in ownership.links_before if other.name != link.name)
    return replace(ownership, links_before=(*others, link))


def plan_undo(observed: HostLinks, ownership: Ownership, bridge_name: str) -> list[Action]:
    """Return links, settings, addresses and routes to how they were before us.

    Skips links that have vanished and addresses that have expired; the others keep their present lifetimes.
    As in `plan`, an address is on its new link before the old one loses it.
    """
    bridge = observed.link(bridge_name)
    if bridge is not None and (bridge.bridge is None or ownership.bridge_index not in (None, bridge.index)):
        bridge = None
    ours = [
        (link, before)
        for before in reversed(ownership.links_before)
        if (link := observed.link(before.name)) is not None and link.index == before.index
    ]
    actions: list[Action] = []
    for link, before in ours:
        actions += _link_settings(link, before)
    # Links go down before their addresses return, because a link that goes down loses IPv6 addresses.
    for link, before in ours:
        if link.up and not before.up:
            actions += _leaves(link, before, bridge_name)
            actions.append(SetUp(link.name, up=False, keeps=observed.ipv6_of(link.name)))
    actions += _addresses_return(observed, ownership, bridge_name)
    for link, before in ours:
        if before.up or not link.up:
            actions += _leaves(link, before, bridge_name)
    for route in ownership.routes:
        actions += _route_returns(observed, route, bridge_name)
    if bridge is not None:
        actions += _bridge_loses(observed, ownership, bridge)
    return actions


def _link_settings(link: Link, before: Link) -> Iterator[Action]:
    if link.mtu != before.mtu:
        yield SetMtu(link.name, before.mtu, link.mtu)
    if link.queue_frames != before.queue_frames:
        yield SetQueue(link.name, before.queue_frames, link.queue_frames)
    if before.up and not link.up:
        yield SetUp(link.name, up=True)


def _addresses_return(observed: HostLinks, ownership: Ownership, bridge_name: str) -> Iterator[Action]:
    held = {address.key: address for address in observed.addresses_of(bridge_name)}
    for address in ownership.handed_over:
        if observed.link(address.link) is None:
            continue
        there = {other.key for other in observed.addresses_of(address.link)}
        current = held.get(address.key, address)
        if address.key not in there and not current.has_expired(observed.now):
            yield AddAddress(
                replace(address, valid_until=current.valid_until, preferred_until=current.preferred_until)
            )


def _leaves(link: Link, before: Link, bridge_name: str) -> Iterator[Action]:
    if link.master != bridge_name:
        return
    stays = before.master == bridge_name
    router = before.multicast_router if stays else 1
    if None not in (link.multicast_router, router) and link.multicast_router != router:
        assert link.multicast_router is not None and router is not None
        yield SetMulticastRouter(link.name, router, link.multicast_router)
    if stays and None not in (link.vlans, before.vlans) and link.vlans != before.vlans:
        assert link.vlans is not None and before.vlans is not None
        yield SetVlans(link.name, before.vlans, link.vlans)
    if not stays:
        yield Detach(link.name, bridge_name)


def _route_returns(observed: HostLinks, route: HostRoute, bridge_name: str) -> Iterator[Action]:
    present = {other.key: other for other in observed.routes}
    if route.is_kernels:
        moved = route
        for name in route.links:
            moved = moved.moved(name, bridge_name)
        # The kernel's own, or one of our copies; a copy has another metric.
        learned = [other for other in observed.routes if _is_the_same_learned(other, moved, observed.now)]
        current = min(learned, key=lambda other: other.metric, default=None)
        if current is None or route.key in present:
            # The router has withdrawn it, or the port has learned it again.
            return
        route = replace(route.copied(), expires_at=current.expires_at)
    if route.key in present or route.has_expired(observed.now):
        return
    if all(observed.link(name) is not None for name in route.links):
        yield AddRoute(route)


def _is_the_same_learned(other: HostRoute, route: HostRoute, now: float) -> bool:
    return (
        other.is_kernels
        and not other.has_expired(now)
        and replace(other, metric=route.metric).key == route.key
    )


def _bridge_loses(observed: HostLinks, ownership: Ownership, bridge: Link) -> Iterator[Action]:
    """Remove what we put on the bridge, and the bridge itself if we made it."""
    present = {route.key for route in observed.routes}
    for route in reversed(ownership.added_routes):
        if route.key in present:
            yield DeleteRoute(route)
    added = {address.key for address in ownership.added}
    for address in reversed(list(observed.addresses_of(bridge.name))):
        if address.key in added:
            yield DeleteAddress(address)
    assert bridge.bridge is not None
    before = ownership.bridge_before
    if ownership.bridge_made and bridge.mac is not None:
        yield DeleteBridge(bridge.name, bridge.mac, bridge.bridge)
    elif before is not None and before.bridge is not None:
        if bridge.bridge != before.bridge:
            yield SetSettings(bridge.name, before.bridge, bridge.bridge)
        if bridge.mtu != before.mtu:
            yield SetMtu(bridge.name, before.mtu, bridge.mtu)
        if before.mac is not None and bridge.mac is not None and bridge.mac != before.mac:
            yield SetMac(bridge.name, before.mac, bridge.mac)
        if None not in (bridge.inet6, before.inet6) and bridge.inet6 != before.inet6:
            assert bridge.inet6 is not None and before.inet6 is not None
            yield SetInet6(bridge.name, before.inet6, bridge.inet6)
        if bridge.up and not before.up:
            kept = tuple(address for address in observed.ipv6_of(bridge.name) if address.key not in added)
            yield SetUp(bridge.name, up=False, keeps=kept)
