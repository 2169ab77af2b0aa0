"""What the parts of one session share: settings, state, timers, and the events that come out.

Pure: no sockets, no clock; `now` is monotonic seconds, random bytes come from a function.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from bridged.errors import LocalProtocolError
from bridged.protocol.packets.messages import Advance
from bridged.protocol.role import Role
from bridged.protocol.session.events import SessionDown, SessionEnded, SessionEvent
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.states import TRANSITIONS, SessionInput, SessionState
from bridged.protocol.session.timers import Deadline, SessionTimer, TimerTable
from bridged.units import Seconds

DRAIN_SECONDS: Final = 5.0
"""How long a session that has ended still acknowledges and repeats (docs/protocol/control.md#6)."""

_DRAINING_TIMERS: Final = (SessionTimer.DRAIN, SessionTimer.RETRANSMISSION)


class SessionCore:
    """The common ground of a session's parts. `Session` makes it and gives it to each of them.

    `state` moves by the rows of TRANSITIONS alone. `random_bytes(n)` returns n unpredictable bytes.

    Raises:
        LocalProtocolError: a step that is no row of TRANSITIONS.
    """

    def __init__(self, settings: SessionSettings, random_bytes: Callable[[int], bytes], now: float) -> None:
        self.settings = settings
        self.random_bytes = random_bytes
        self.timers = TimerTable()
        self.state = SessionState.HANDSHAKE
        self.ends_once_acknowledged = True
        """Draining ends as soon as the peer has acknowledged everything, before its time is up."""
        self._was_established = False
        self._started_at = now
        self._events: deque[SessionEvent] = deque()

    @property
    def is_live(self) -> bool:
        """Neither draining nor closed."""
        return self.state in (SessionState.HANDSHAKE, SessionState.ESTABLISHED)

    def elapsed(self, now: float) -> Seconds:
        """Since the session began."""
        return Seconds(now - self._started_at)

    # --- events and deadlines ---------------------------------------------------------------------

    def emit(self, event: SessionEvent) -> None:
        self._events.append(event)

    def next_event(self) -> SessionEvent | None:
        """The oldest event that was not taken yet."""
        return self._events.popleft() if self._events else None

    def next_deadline(self) -> Deadline | None:
        """The earliest deadline that still counts in this state."""
        if self.state is SessionState.CLOSED:
            return None
        return self.timers.next() if self.is_live else self.timers.next(_DRAINING_TIMERS)

    # --- steps ------------------------------------------------------------------------------------

    def establish(self) -> None:
        """Both ends agreed and the first data key exists."""
        self._step(SessionInput.KEYS_READY)
        self._was_established = True

    def leave(
        self,
        given: SessionInput,
        reason: str,
        detail: str,
        now: float,
        *,
        drain: float = DRAIN_SECONDS,
        retry_after: float = 0.0,
        advance: Advance | None = None,
        is_final: bool = False,
        is_handed_over: bool = False,
    ) -> None:
        """End all traffic and emit `SessionDown`, once. Repeat the last control packets for `drain` seconds.

        `reason`, `retry_after`, `advance`, `is_final` and `is_handed_over` as in `SessionDown`.
        """
        if not self.is_live:
            return
        self._step(given)
        self.timers.set(SessionTimer.DRAIN, now + drain)
        # After a failure a server stays for the whole time. Otherwise a packet that the peer repeats would
        # open a new session with the same cookie.
        self.ends_once_acknowledged = given is SessionInput.CLOSE_REQUESTED or (
            given is SessionInput.FAILED and self.settings.role is Role.CLIENT
        )
        if given is SessionInput.PEER_LEFT and not self._was_established:
            reason = "reset_by_peer"
        self.emit(
            SessionDown(
                reason,
                detail,
                self._was_established,
                self.elapsed(now),
                Seconds(retry_after),
                advance,
                is_final,
                is_handed_over,
            )
        )

    def finish(self) -> None:
        """Draining is over."""
        self._step(SessionInput.DRAINED)
        self.emit(SessionEnded())

    def _step(self, given: SessionInput) -> None:
        target = TRANSITIONS.get((self.state, given))
        if target is None:
            raise LocalProtocolError(f"session: {given.value!r} while {self.state.value!r}")
        self.state = target
