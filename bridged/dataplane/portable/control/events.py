"""Events on their way to the control plane, announced by an eventfd. Every queue is bounded.

Source: bridged/dataplane/contract/events.py. Control datagrams, have `control_queue`.
Events about a state (a peer expired or floated, a key is worn, the TAP failed) always find room: only one
waits for each state, however often it changes before the event is taken. Written under the loop's gate, read
by the control plane's thread.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from typing import NamedTuple

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    EVENT_QUEUE_EVENTS,
    OCC_WAITING,
    DataplaneEvent,
    FramingRefused,
    KeyNearLimit,
    OccReceived,
    PeerExpired,
    PeerFloated,
    SessionUnknown,
    StreamClosed,
    TapFailed,
)
from bridged.dataplane.portable.control.control_queue import ControlQueue, Sender
from bridged.units import KeyId, PeerHandle


class EventState(NamedTuple):
    """Something of which at most one event waits; that event has the latest values."""

    kind: type[DataplaneEvent]
    handle: PeerHandle | None = None
    key_id: KeyId | None = None
    endpoint: Endpoint | None = None


class EventQueue:
    """All events, oldest first, with control datagrams behind the others.

    At most EVENT_QUEUE_EVENTS wait of the kinds that may be refused, and one event for each state.
    """

    def __init__(self) -> None:
        self._queue: deque[DataplaneEvent | EventState] = deque()
        self._states: dict[EventState, DataplaneEvent] = {}
        self._occ: Counter[PeerHandle] = Counter()
        """How many OCC messages of each peer wait."""
        self._others = 0
        # For all but control datagrams, which have their own queues.
        self._lock = threading.Lock()
        self.control = ControlQueue()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def control_depth(self) -> int:
        return len(self.control)

    @property
    def event_depth(self) -> int:
        return self._others + len(self._states)

    def put(self, event: DataplaneEvent) -> bool:
        """Queue an event; False without room (`event_queue_full`). There is always room for a state."""
        state = _state_of(event)
        with self._lock:
            if state is not None:
                self._put_state(state, event)
            elif self._may_put(event):
                self._append(event)
            else:
                return False
        return True

    def forget(self, handle: PeerHandle) -> None:
        """Remove the events about the states of a peer that has gone. With the loop's gate held."""
        with self._lock:
            gone = [state for state in self._states if state.handle == handle]
            for state in gone:
                del self._states[state]
                self._queue.remove(state)

    def forget_stream(self, endpoint: Endpoint) -> None:
        """Remove the event about the end of a stream. With the loop's gate held."""
        state = EventState(StreamClosed, endpoint=endpoint)
        with self._lock:
            if self._states.pop(state, None) is not None:
                self._queue.remove(state)

    def put_control(self, datagram: bytes, source: Endpoint, now: float, peer: PeerHandle) -> str | None:
        """Queue a control datagram of a peer; returns the drop reason if it is refused."""
        return self.announce(self.control.put(datagram, source, now, Sender.PEER, peer=peer))

    def announce(self, refusal: str | None) -> str | None:
        """Wake the reader if something waits in `control`; returns `refusal` as it is."""
        if len(self.control):
            os.eventfd_write(self._descriptor, 1)
        return refusal

    def take(self, limit: int) -> list[DataplaneEvent]:
        """Up to `limit` events; the descriptor stays readable while more wait."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            pass
        taken: list[DataplaneEvent] = []
        with self._lock:
            while len(taken) < limit and self._queue:
                event = self._leave(self._queue.popleft())
                if event is not None:
                    taken.append(event)
        taken += self.control.take(limit - len(taken))
        if self._queue or len(self.control):
            os.eventfd_write(self._descriptor, 1)
        return taken

    def _append(self, entry: DataplaneEvent | EventState) -> None:
        self._queue.append(entry)
        os.eventfd_write(self._descriptor, 1)

    def _put_state(self, state: EventState, event: DataplaneEvent) -> None:
        known = self._states.get(state)
        if known is None:
            self._states[state] = event
            self._append(state)
        elif isinstance(known, PeerFloated) and isinstance(event, PeerFloated):
            self._states[state] = PeerFloated(known.handle, event.endpoint, known.previous)
        elif isinstance(event, TapFailed):
            self._states[state] = event

    def _may_put(self, event: DataplaneEvent) -> bool:
        if self._others >= EVENT_QUEUE_EVENTS:
            return False
        if isinstance(event, OccReceived):
            if self._occ[event.handle] >= OCC_WAITING:
                return False
            self._occ[event.handle] += 1
        self._others += 1
        return True

    def _leave(self, entry: DataplaneEvent | EventState) -> DataplaneEvent | None:
        """The event of an entry that leaves the queue; None if there is nothing left to report."""
        if isinstance(entry, EventState):
            event = self._states.pop(entry)
            # The peer has come back to where it was.
            is_back = isinstance(event, PeerFloated) and event.endpoint == event.previous
            return None if is_back else event
        self._others -= 1
        if isinstance(entry, OccReceived):
            self._occ[entry.handle] -= 1
            if not self._occ[entry.handle]:
                del self._occ[entry.handle]
        return entry


def _state_of(event: DataplaneEvent) -> EventState | None:
    match event:
        case PeerFloated(handle) | PeerExpired(handle) | SessionUnknown(handle) | FramingRefused(handle):
            return EventState(type(event), handle)
        case KeyNearLimit(handle, key_id):
            return EventState(KeyNearLimit, handle, key_id)
        case StreamClosed(endpoint):
            return EventState(StreamClosed, endpoint=endpoint)
        case TapFailed():
            return EventState(TapFailed)
        case _:
            return None
