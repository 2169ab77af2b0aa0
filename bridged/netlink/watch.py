"""Reports changes of links, addresses and routes as they happen.

Source: rtnetlink(7), netlink(7) (ENOBUFS). Asyncio: one socket read by the event loop. Events of a short
while are delivered together. When the kernel had to drop some, one `resync` event says so: subscribers then
look at everything again.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
)

from bridged.link_planning.links import LOCAL_TABLE
from bridged.netlink.multicast import MulticastListener, attributes, messages
from bridged.supervision import SUPERVISOR, Timer

EventKind: TypeAlias = Literal["link", "address", "route", "resync"]

_KINDS: Final[dict[int, tuple[EventKind, bool]]] = {
    RTM_NEWLINK: ("link", False),
    RTM_DELLINK: ("link", True),
    RTM_NEWADDR: ("address", False),
    RTM_DELADDR: ("address", True),
    RTM_NEWROUTE: ("route", False),
    RTM_DELROUTE: ("route", True),
}
# RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_GROUPS = (1, 5, 7, 9, 11)
_INDEX = struct.Struct("=i")
_LINK_MESSAGE_OCTETS = 16
_ROUTE_MESSAGE_OCTETS = 12
_IFLA_IFNAME = 3
_RTA_OIF = 4
_RTA_MULTIPATH = 9
_ROUTE_TABLE_OCTET = 4
_NEXTHOP = struct.Struct("=HxxI")
_AF_BRIDGE = 7
_PENDING_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class HostEvent:
    """A change on `link` (empty where the link is gone) with this `index` (0 where no link is meant).

    `gone`: the object was removed. A bridge port that leaves its bridge is reported once, too; ask
    `Host.observe` what is there. A route by several links is one event for each. `resync`: events were lost,
    anything may have changed.
    """

    kind: EventKind
    link: str = ""
    index: int = 0
    gone: bool = False


class LinkWatch:
    """Listens from `start` to `close` and calls every subscriber with the events of each short while.

    `gather_seconds`: how long events are gathered before they are delivered, each once.
    """

    def __init__(self, *, gather_seconds: float = 0.02, receive_buffer_octets: int = 1 << 20) -> None:
        self._gather_seconds = gather_seconds
        self._listener = MulticastListener(_GROUPS, self._take, self._lost, receive_buffer_octets)
        self._subscribers: list[Callable[[frozenset[HostEvent]], None]] = []
        self._pending: set[HostEvent] = set()
        self._timer: Timer | None = None
        self.resyncs = 0

    def start(self) -> None:
        """Begin to listen, in the running event loop and the network namespace of its thread. Idempotent.

        Raises:
            OSError: no netlink socket.
        """
        self._listener.start()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._listener.close()

    def subscribe(self, callback: Callable[[frozenset[HostEvent]], None]) -> Callable[[], None]:
        """Call `callback` in the event loop with what changed; returns what ends the subscription."""
        # Guarded one by one: a callback that fails does not keep events from the others.
        guarded = SUPERVISOR.guard("link_watch", callback, getattr(callback, "__qualname__", ""))
        self._subscribers.append(guarded)

        def unsubscribe() -> None:
            if guarded in self._subscribers:
                self._subscribers.remove(guarded)

        return unsubscribe

    def _take(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self._pending.update(parse_events(datagram))
        if len(self._pending) > _PENDING_LIMIT:
            self._pending.clear()
            self._lost()
        self._hand_on_soon()

    def _lost(self) -> None:
        self.resyncs += 1
        self._pending.add(HostEvent("resync"))
        self._hand_on_soon()

    def _hand_on_soon(self) -> None:
        if self._pending and self._timer is None:
            self._timer = SUPERVISOR.after("link_watch", self._gather_seconds, self._hand_on)

    def _hand_on(self) -> None:
        self._timer = None
        events = frozenset(map(_named, self._pending))
        self._pending.clear()
        for callback in tuple(self._subscribers):
            callback(events)


def parse_events(datagram: bytes) -> Iterator[HostEvent]:
    """The events in one datagram of the kernel; skips messages of other kinds.

    Only links have their names yet. Skips routes of the local table: they come and go with their address.
    """
    for message_type, body in messages(datagram):
        if message_type not in _KINDS:
            continue
        kind, gone = _KINDS[message_type]
        if kind == "route":
            if len(body) > _ROUTE_TABLE_OCTET and body[_ROUTE_TABLE_OCTET] != LOCAL_TABLE:
                yield from (HostEvent(kind, "", index, gone) for index in _route_links(body))
        elif len(body) >= 8:
            (index,) = _INDEX.unpack_from(body, 4)
            name = _attribute(body, _LINK_MESSAGE_OCTETS, _IFLA_IFNAME) if kind == "link" else b""
            text = name.rstrip(b"\0").decode(errors="replace")
            # A port that leaves its bridge is "deleted" in the bridge family; the link itself stays.
            yield HostEvent(kind, text, index, gone and not (kind == "link" and body[0] == _AF_BRIDGE))


def _attribute(body: bytes, offset: int, wanted: int) -> bytes:
    return next((value for kind, value in attributes(body, offset) if kind == wanted), b"")


def _route_links(body: bytes) -> Iterator[int]:
    """Indices of a route's links; 0 where it names none."""
    for kind, value in attributes(body, _ROUTE_MESSAGE_OCTETS):
        if kind == _RTA_OIF and len(value) == _INDEX.size:
            yield _INDEX.unpack(value)[0]
            return
        if kind == _RTA_MULTIPATH:
            offset = 0
            while offset + _NEXTHOP.size <= len(value):
                length, index = _NEXTHOP.unpack_from(value, offset)
                yield index
                offset += max(_NEXTHOP.size, (length + 3) & ~3)
            return
    yield 0


def _named(event: HostEvent) -> HostEvent:
    """The event with the link's present name, if it has one."""
    if event.link or not event.index:
        return event
    try:
        return replace(event, link=socket.if_indextoname(event.index))
    except OSError:
        return event
