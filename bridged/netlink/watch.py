"""Changes of links, addresses and routes, as they happen.

Source: rtnetlink(7), netlink(7) (ENOBUFS).
Asyncio: one socket read by the event loop. Events of a short while are handed on together, and when the
kernel had to drop some, that is said by one `resync` event: whoever listens looks at everything anew.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
)

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
_AF_BRIDGE = 7
_PENDING_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class HostEvent:
    """Something changed on `link` (index `index`; name empty and index 0 where several or none are meant).

    `gone`: it was removed. A bridge port that leaves its bridge also says so once; ask `Host.observe` what
    is there. `resync`: events were lost, anything may have changed.
    """

    kind: EventKind
    link: str = ""
    index: int = 0
    gone: bool = False


class LinkWatch:
    """Listens from `start` to `close` and calls every subscriber with the events of each short while.

    `gather_seconds`: how long events are gathered before they are handed on, each of them once.
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
            OSError: no netlink socket to be had.
        """
        self._listener.start()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._listener.close()

    def subscribe(self, callback: Callable[[frozenset[HostEvent]], None]) -> Callable[[], None]:
        """Call `callback`, in the event loop, with what changed; returns the way to end it."""
        # Each for itself: one that fails does not keep the others from hearing.
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
        events = frozenset(self._pending)
        self._pending.clear()
        for callback in tuple(self._subscribers):
            callback(events)


def parse_events(datagram: bytes) -> Iterator[HostEvent]:
    """The events of one datagram of the kernel; what is of another kind is left out."""
    for message_type, body in messages(datagram):
        if message_type not in _KINDS:
            continue
        kind, gone = _KINDS[message_type]
        if kind == "route":
            found = dict(attributes(body, _ROUTE_MESSAGE_OCTETS)).get(_RTA_OIF, b"")
            index = _INDEX.unpack(found)[0] if len(found) == _INDEX.size else 0
            yield HostEvent(kind, _name_of(index), index, gone)
        elif len(body) >= 8:
            (index,) = _INDEX.unpack_from(body, 4)
            name = dict(attributes(body, _LINK_MESSAGE_OCTETS)).get(_IFLA_IFNAME) if kind == "link" else None
            text = name.rstrip(b"\0").decode(errors="replace") if name else _name_of(index)
            # A port that leaves its bridge is "deleted" in the family of bridges: the link itself stays.
            yield HostEvent(kind, text, index, gone and not (kind == "link" and body[0] == _AF_BRIDGE))


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
