"""The addresses and routes of one bridge: which of them to add, move from its ports, or remove.

Pure; part of `plan`.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridged.link_planning.actions import (
    Action,
    AddAddress,
    AddRoute,
    Attach,
    DeleteAddress,
    DeleteRoute,
    RenewAddress,
    SetMtu,
    SetUp,
)
from bridged.link_planning.links import (
    HostAddress,
    HostLinks,
    HostRoute,
    Link,
    canonical_address,
    is_link_local,
    routes_by,
)
from bridged.link_planning.wishes import BridgeWish, Ownership


class Holdings:
    """The addresses and routes of the bridge, while actions are being planned."""

    def __init__(
        self,
        observed: HostLinks,
        wish: BridgeWish,
        ownership: Ownership,
        held_back: frozenset[tuple[str, str]],
    ) -> None:
        self._observed = observed
        self._wish = wish
        self._ownership = ownership
        self._held = {address.key: address for address in observed.addresses_of(wish.name)}
        self._routes = {route.key for route in observed.routes}
        self._adds_addresses = ("address", wish.name) not in held_back
        self._adds_routes = ("route", wish.name) not in held_back
        # All or nothing: an address that leaves takes its routes along.
        self._moves = wish.move_addresses and self._adds_addresses and self._adds_routes

    def missing_addresses(self) -> Iterator[Action]:
        """Add the configured addresses, and moved ones that the bridge has lost since."""
        if not self._adds_addresses:
            return
        for text in self._wish.addresses:
            yield from self._add(HostAddress(self._wish.name, canonical_address(text)))
        for address in self._ownership.handed_over:
            # Addresses that the kernel makes from advertisements are the kernel's to keep or remove.
            if not address.is_kernels and not address.has_expired(self._observed.now):
                yield from self._add(address.on(self._wish.name))

    def missing_routes(self) -> Iterator[Action]:
        """Add moved routes that were lost since; remove our copies of routes that the kernel has again."""
        if not self._adds_routes:
            return
        for route in self._ownership.routes:
            moved = self._by_bridge(route)
            if route.is_kernels:
                copy = moved.copied()
                if moved.key in self._routes and copy.key in self._routes:
                    # The kernel has its own by now.
                    self._routes.discard(copy.key)
                    yield DeleteRoute(copy)
            elif not route.has_expired(self._observed.now):
                yield from self._add_route(moved)

    def port_changes(self, port: Link) -> Iterator[Action]:
        wish = self._wish
        handing_over = [
            address
            for address in self._observed.addresses_of(port.name)
            if self._moves and not is_link_local(address)
        ]
        for address in handing_over:
            yield from self._add(address.on(wish.name), renew=True)
        if wish.mtu is not None and port.mtu != wish.mtu:
            yield SetMtu(port.name, wish.mtu, port.mtu)
        if port.master is None:
            yield Attach(port.name, wish.name)
        if self._moves:
            for route in routes_by(self._observed.routes, port.name):
                moved = self._by_bridge(route)
                if not route.is_kernels:
                    yield from self._add_route(moved)
                elif moved.key not in self._routes:
                    yield from self._add_route(moved.copied())
                yield DeleteRoute(route)
        # The first IPv4 address of a network leaves last: it would take the others of the network along.
        for address in reversed(handing_over):
            yield DeleteAddress(address)
        # Last. Undone in reverse, the link then goes down before its IPv6 addresses return.
        if not port.up:
            yield SetUp(port.name, up=True, keeps=() if self._moves else self._observed.ipv6_of(port.name))

    def _add(self, address: HostAddress, *, renew: bool = False) -> Iterator[Action]:
        held = self._held.get(address.key)
        if held is None:
            self._held[address.key] = address
            yield AddAddress(address)
        elif renew and (held.valid_until, held.preferred_until) != (
            address.valid_until,
            address.preferred_until,
        ):
            self._held[address.key] = address
            yield RenewAddress(address, held)

    def _add_route(self, route: HostRoute) -> Iterator[Action]:
        if route.key not in self._routes:
            self._routes.add(route.key)
            yield AddRoute(route)

    def _by_bridge(self, route: HostRoute) -> HostRoute:
        for name in self._wish.ports:
            route = route.moved(name, self._wish.name)
        return route
