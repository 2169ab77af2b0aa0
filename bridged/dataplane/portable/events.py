"""Events on their way to the control plane, behind an eventfd; every queue is bounded.

Source: bridged/dataplane/contract.py. Strangers can send control datagrams: they are limited by source, and
leave room for peers, so that a flood cannot cut off a renegotiation.
Written under the loop's gate, read by the control plane's thread; a deque needs no lock for that.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from typing import Final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    CONTROL_QUEUE_DATAGRAMS,
    EVENT_QUEUE_EVENTS,
    ControlReceived,
    Event,
)

SOURCES_REMEMBERED: Final = 4096
STRANGER_BURST_DATAGRAMS: Final = 256.0
STRANGER_DATAGRAMS_PER_SECOND: Final = 128.0
PEER_BURST_DATAGRAMS: Final = 1024.0
PEER_DATAGRAMS_PER_SECOND: Final = 1024.0
STRANGER_QUEUE_DATAGRAMS: Final = CONTROL_QUEUE_DATAGRAMS * 3 // 4
CONTROL_DATAGRAM_OCTETS: Final = 4096
"""Larger ones cannot be control packets (tls-mtu is at most 2048)."""


class SourceLimit:
    """A token bucket for each source of control datagrams.

    Holds SOURCES_REMEMBERED sources; the one longest unheard is forgotten first.
    """

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()

    def allows(self, source: str, now: float, *, burst: float, rate: float) -> bool:
        """Take one token of `source`; False where it has none left. `rate` is tokens per second."""
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= SOURCES_REMEMBERED:
                self._buckets.popitem(last=False)
            self._buckets[source] = [burst - 1.0, now]
            return True
        self._buckets.move_to_end(source)
        tokens = min(burst, bucket[0] + (now - bucket[1]) * rate)
        bucket[1] = now
        bucket[0] = tokens - 1.0 if tokens >= 1.0 else tokens
        return tokens >= 1.0


class EventQueue:
    """Control datagrams and all other events, oldest first, and the eventfd that tells of them.

    At most CONTROL_QUEUE_DATAGRAMS datagrams of CONTROL_DATAGRAM_OCTETS and EVENT_QUEUE_EVENTS others wait.
    """

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        # Each figure has one writer: of what was put in, who holds the gate; of what was taken, the reader.
        self._control_put = self._control_taken = 0
        self._others_put = self._others_taken = 0
        self._limit = SourceLimit()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def control_depth(self) -> int:
        return max(0, self._control_put - self._control_taken)

    @property
    def event_depth(self) -> int:
        return max(0, self._others_put - self._others_taken)

    def put(self, event: Event) -> bool:
        """Queue an event; False where there is no room (`event_queue_full`)."""
        if self.event_depth >= EVENT_QUEUE_EVENTS:
            return False
        self._others_put += 1
        self._append(event)
        return True

    def put_control(self, datagram: bytes, source: Endpoint, now: float, *, known: bool) -> str | None:
        """Queue a control datagram, or say why not (drop reason). `known`: it is from a peer's endpoint."""
        if len(datagram) > CONTROL_DATAGRAM_OCTETS:
            return "bad_length"
        if known:
            allowed = self._limit.allows(
                str(source), now, burst=PEER_BURST_DATAGRAMS, rate=PEER_DATAGRAMS_PER_SECOND
            )
        else:
            allowed = self._limit.allows(
                source.host, now, burst=STRANGER_BURST_DATAGRAMS, rate=STRANGER_DATAGRAMS_PER_SECOND
            )
        if not allowed:
            return "source_rate"
        if self.control_depth >= (CONTROL_QUEUE_DATAGRAMS if known else STRANGER_QUEUE_DATAGRAMS):
            return "control_queue_full"
        self._control_put += 1
        self._append(ControlReceived(datagram, source))
        return None

    def take(self, limit: int) -> list[Event]:
        """Up to `limit` events; the descriptor stays readable while more wait."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            pass
        taken: list[Event] = []
        while len(taken) < limit:
            try:
                event = self._queue.popleft()
            except IndexError:
                break
            if isinstance(event, ControlReceived):
                self._control_taken += 1
            else:
                self._others_taken += 1
            taken.append(event)
        if self._queue:
            os.eventfd_write(self._descriptor, 1)
        return taken

    def _append(self, event: Event) -> None:
        self._queue.append(event)
        os.eventfd_write(self._descriptor, 1)
