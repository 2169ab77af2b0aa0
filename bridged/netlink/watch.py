"""Changes of links, addresses and routes, as they happen.

Source: rtnetlink(7), netlink(7) (ENOBUFS).
Asyncio: one socket read by the event loop. Events of a short while are handed on together, and when the
kernel had to drop some, that is said by one `resync` event: whoever listens looks at everything anew.
"""

from __future__ import annotations

import asyncio
import errno
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
_GROUPS = sum(1 << (group - 1) for group in (1, 5, 7, 9, 11))
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_INDEX = struct.Struct("=i")
_LINK_MESSAGE_OCTETS = 16
_ROUTE_MESSAGE_OCTETS = 12
_IFLA_IFNAME = 3
_RTA_OIF = 4
_AF_BRIDGE = 7
_DATAGRAM_OCTETS = 1 << 16
_DATAGRAMS_PER_TURN = 64
"""Then the event loop gets its turn, however fast the kernel talks."""
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
        self._receive_buffer_octets = receive_buffer_octets
        self._subscribers: list[Callable[[frozenset[HostEvent]], None]] = []
        self._pending: set[HostEvent] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self.resyncs = 0

    def start(self) -> None:
        """Begin to listen, in the running event loop and the network namespace of its thread.

        Raises:
            OSError: no netlink socket to be had.
        """
        if self._socket is not None:
            return
        listener = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_octets)
        try:
            listener.bind((0, _GROUPS))
        except OSError:
            listener.close()
            raise
        self._socket = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._read)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def subscribe(self, callback: Callable[[frozenset[HostEvent]], None]) -> Callable[[], None]:
        """Call `callback`, in the event loop, with what changed; returns the way to end it."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def _read(self) -> None:
        assert self._socket is not None
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                datagram = self._socket.recv(_DATAGRAM_OCTETS)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost()
                continue
            for event in parse_events(datagram):
                self._pending.add(event)
        if len(self._pending) > _PENDING_LIMIT:
            self._pending.clear()
            self._lost()
        if self._pending and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._gather_seconds, self._hand_on)

    def _lost(self) -> None:
        self.resyncs += 1
        self._pending.add(HostEvent("resync"))

    def _hand_on(self) -> None:
        self._timer = None
        events = frozenset(self._pending)
        self._pending.clear()
        for callback in tuple(self._subscribers):
            callback(events)


def parse_events(datagram: bytes) -> Iterator[HostEvent]:
    """The events of one datagram of the kernel; what is of another kind is left out."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, message_type, *_ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            return
        body = datagram[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3
        if message_type not in _KINDS:
            continue
        kind, gone = _KINDS[message_type]
        if kind == "route":
            found = dict(_attributes(body, _ROUTE_MESSAGE_OCTETS)).get(_RTA_OIF, b"")
            index = _INDEX.unpack(found)[0] if len(found) == _INDEX.size else 0
            yield HostEvent(kind, _name_of(index), index, gone)
        elif len(body) >= 8:
            (index,) = _INDEX.unpack_from(body, 4)
            name = dict(_attributes(body, _LINK_MESSAGE_OCTETS)).get(_IFLA_IFNAME) if kind == "link" else None
            text = name.rstrip(b"\0").decode(errors="replace") if name else _name_of(index)
            # A port that leaves its bridge is "deleted" in the family of bridges: the link itself stays.
            yield HostEvent(kind, text, index, gone and not (kind == "link" and body[0] == _AF_BRIDGE))


def _attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
