"""Events on their way to the control plane, behind an eventfd; every queue is bounded.

Source: bridged/dataplane/contract.py. Strangers can send control datagrams: `control_queue` keeps them apart.
What is told once (a peer expired, floated, has a worn key; the TAP failed) is state: it has its place for
certain, and only one, however often it happens before it is heard.
Written under the loop's gate, read by the control plane's thread.
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
    Event,
    KeyNearLimit,
    OccReceived,
    PeerExpired,
    PeerFloated,
    SessionUnknown,
    TapFailed,
)
from bridged.dataplane.portable.control.control_queue import ControlQueue, Sender
from bridged.units import KeyId, PeerHandle


class State(NamedTuple):
    """What can be told of once: at most one event of it waits, in which the latest stands."""

    kind: type[Event]
    handle: PeerHandle | None = None
    key_id: KeyId | None = None


class EventQueue:
    """Control datagrams and all other events, oldest first, and the eventfd that tells of them.

    Control datagrams come behind the others; at most EVENT_QUEUE_EVENTS wait that may be refused, and one
    event for each state.
    """

    def __init__(self) -> None:
        self._queue: deque[Event | State] = deque()
        self._states: dict[State, Event] = {}
        self._occ: Counter[PeerHandle] = Counter()
        """OCC messages that wait."""
        self._others = 0
        # Held for what is not a control datagram: those have queues of their own.
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

    def put(self, event: Event) -> bool:
        """Queue an event; False where there is no room (`event_queue_full`). For state there always is."""
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
        """A peer has gone: nobody wants to hear of its state any more. With the loop's gate held."""
        with self._lock:
            gone = [state for state in self._states if state.handle == handle]
            for state in gone:
                del self._states[state]
                self._queue.remove(state)

    def put_control(self, datagram: bytes, source: Endpoint, now: float, peer: PeerHandle) -> str | None:
        """Queue a control datagram of a peer, or say why not (drop reason)."""
        return self.told(self.control.put(datagram, source, now, Sender.PEER, peer=peer))

    def told(self, refusal: str | None) -> str | None:
        """Something may have been put into `control`: wake the reader."""
        if len(self.control):
            os.eventfd_write(self._descriptor, 1)
        return refusal

    def take(self, limit: int) -> list[Event]:
        """Up to `limit` events; the descriptor stays readable while more wait."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            pass
        taken: list[Event] = []
        with self._lock:
            while len(taken) < limit and self._queue:
                event = self._leave(self._queue.popleft())
                if event is not None:
                    taken.append(event)
        taken += self.control.take(limit - len(taken))
        if self._queue or len(self.control):
            os.eventfd_write(self._descriptor, 1)
        return taken

    def _append(self, entry: Event | State) -> None:
        self._queue.append(entry)
        os.eventfd_write(self._descriptor, 1)

    def _put_state(self, state: State, event: Event) -> None:
        known = self._states.get(state)
        if known is None:
            self._states[state] = event
            self._append(state)
        elif isinstance(known, PeerFloated) and isinstance(event, PeerFloated):
            self._states[state] = PeerFloated(known.handle, event.endpoint, known.previous)
        elif isinstance(event, TapFailed):
            self._states[state] = event

    def _may_put(self, event: Event) -> bool:
        if self._others >= EVENT_QUEUE_EVENTS:
            return False
        if isinstance(event, OccReceived):
            if self._occ[event.handle] >= OCC_WAITING:
                return False
            self._occ[event.handle] += 1
        self._others += 1
        return True

    def _leave(self, entry: Event | State) -> Event | None:
        """The event of an entry that leaves the queue; None: there is nothing to tell any more."""
        if isinstance(entry, State):
            event = self._states.pop(entry)
            # It is where it was: nothing has changed.
            is_back = isinstance(event, PeerFloated) and event.endpoint == event.previous
            return None if is_back else event
        self._others -= 1
        if isinstance(entry, OccReceived):
            self._occ[entry.handle] -= 1
            if not self._occ[entry.handle]:
                del self._occ[entry.handle]
        return entry


def _state_of(event: Event) -> State | None:
    match event:
        case PeerFloated(handle) | PeerExpired(handle) | SessionUnknown(handle):
            return State(type(event), handle)
        case KeyNearLimit(handle, key_id):
            return State(KeyNearLimit, handle, key_id)
        case TapFailed():
            return State(TapFailed)
        case _:
            return None
