"""The live calls of one client: whose server has answered, and which one is connected.

Source: docs/decisions/0043.
Callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bridged.addresses import Endpoint
from bridged.protocol.session.timers import NEVER
from bridged.runtime.client.call import CALL_SECONDS, KNOCK_SECONDS, KNOCKS, Call
from bridged.runtime.client.outage import Outage
from bridged.runtime.client.remote_order import RemoteOrder
from bridged.units import PeerHandle

CALLS_MAX: Final = 32
"""Calls at once. One more ends the oldest that has no answer."""
STALLS_MAX: Final = 1024
"""Endpoints whose stalls are counted."""


class Calls:
    """Decides which calls live. `on_timeout` gets each that ended without an answer, and its duration.

    `speaker`: the call whose server has answered; no other goes on with its handshake. `connected`: the call
    that the server has let in.
    """

    def __init__(self, order: RemoteOrder, outage: Outage, on_timeout: Callable[[Call, float], None]) -> None:
        self.speaker: Call | None = None
        self.connected: Call | None = None
        self._order = order
        self._outage = outage
        self._on_timeout = on_timeout
        self._calls: dict[PeerHandle, Call] = {}
        self._stalls: dict[Endpoint, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls.values()))

    def get(self, handle: PeerHandle) -> Call | None:
        return self._calls.get(handle)

    def stalls_at(self, endpoint: Endpoint) -> int:
        """How often a server there answered and then fell silent, in this outage."""
        return self._stalls.get(endpoint, 0)

    # --- a call's life ----------------------------------------------------------------------------

    def make_room(self, endpoint: Endpoint, *, takes_one: bool) -> None:
        """End what a new call to `endpoint` cannot live beside.

        `takes_one`: there can be one session with each server, as from one fixed port. All calls together are
        bounded.
        """
        if self.connected is not None:
            return
        for call in self:
            if takes_one and call.link.endpoint == endpoint:
                self.drop(call)
        unanswered = [call for call in self._calls.values() if call is not self.speaker]
        if len(unanswered) >= CALLS_MAX:
            self.drop(unanswered[0])

    def add(self, call: Call) -> None:
        self._calls[call.link.handle] = call

    def note_heard(self, call: Call, now: float) -> bool:
        """A good packet came from its server. True where this call is the speaker now.

        It becomes the speaker unless the speaker still answers, too.
        """
        if call.link.session.remote_session_id is None:
            return False
        if self.connected is not None:
            # It will replace the connection once the server has let it in.
            call.heard_at = now
            return False
        speaker = self.speaker
        if speaker is not None and speaker is not call:
            if speaker.waits_until() > now:
                self.drop(call)
                return False
            self._give_up(speaker)
        call.heard_at = now
        call.is_refused = False
        self.speaker = call
        self._outage.note_answer(now)
        for other in self:
            if other is not call:
                self._order.forget(other.candidate.endpoint)
                self.drop(other)
        return True

    def connect(self, call: Call) -> None:
        """The server has let it in: all others end."""
        self.connected = self.speaker = call
        self._stalls.clear()
        for other in self:
            if other is not call:
                self.drop(other)

    def drop(self, call: Call) -> None:
        """End a call without a word: another one is better, or it took too long."""
        self.forget(call.link.handle)
        call.link.abandon("another call was answered")

    def forget(self, handle: PeerHandle) -> Call | None:
        """Its session is over. None where it was dropped before."""
        call = self._calls.pop(handle, None)
        if call is not None and self.speaker is call:
            self.speaker = None
        if call is not None and self.connected is call:
            self.connected = None
        return call

    # --- time -------------------------------------------------------------------------------------

    def tend(self, now: float) -> float:
        """Repeat resets that nobody answered, and end what took too long. Returns when to tend next."""
        for call in self:
            if call is self.connected or call.is_answered or call.next_deadline() > now:
                continue
            if now - call.began >= CALL_SECONDS:
                self._on_timeout(call, now - call.began)
                self._outage.note_timeout(f"timeout: {call.link.session.handshake_hint}")
                self.drop(call)
            elif call.knocked < KNOCKS:
                call.knocked += 1
                call.link.handle_path_change()
        waiting = (call for call in self._calls.values() if call is not self.connected)
        unanswered = (call.next_deadline() for call in waiting if not call.is_answered)
        return min(unanswered, default=NEVER)

    def waits_for_connection(self, endpoint: Endpoint) -> bool:
        """Whether a call by TCP to this endpoint still has time to be answered."""
        return endpoint.transport == "tcp" and any(
            call.link.endpoint == endpoint and not call.is_answered for call in self
        )

    def drop_dials(self, now: float) -> None:
        """The network has changed: end calls by TCP whose first packets went another way.

        The kernel repeats the first one of a younger call after a second.
        """
        for call in self:
            is_dial = call.link.endpoint.transport == "tcp" and not call.is_answered
            if is_dial and now - call.began >= KNOCK_SECONDS:
                self.drop(call)

    def _give_up(self, call: Call) -> None:
        """It answered, fell silent, and another call was answered."""
        if len(self._stalls) >= STALLS_MAX:
            self._stalls.clear()
        self._stalls[call.candidate.endpoint] = call.stalls + 1
        call.link.close("timeout", call.link.session.handshake_hint, notify=False)
