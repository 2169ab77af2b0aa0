"""When a session replaces its data key: by time, on request, for the peer, or again after a failure.

Source: docs/protocol/control.md#4-5.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from typing import Final

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.packet import Opcode
from bridged.protocol.role import Role
from bridged.protocol.session.core import SessionCore
from bridged.protocol.session.key_slots import KeySlots, next_key_id
from bridged.protocol.session.key_state import KeyPhase, KeyState
from bridged.protocol.session.states import SessionState
from bridged.protocol.session.timers import SessionTimer

PEER_RENEGOTIATIONS_BURST: Final = 8
PEER_RENEGOTIATION_SECONDS: Final = 1.0
"""A peer may begin a burst of renegotiations at once, then one in each such period."""


class Renegotiation:
    """Begins renegotiations and answers those of the peer. One that failed is tried again."""

    def __init__(self, core: SessionCore, keys: KeySlots) -> None:
        self._core = core
        self._keys = keys
        self._peer_credit = float(PEER_RENEGOTIATIONS_BURST)
        self._credited_at = 0.0

    def begin(self, trigger: str, now: float) -> bool:
        """Open the next key id with a soft reset; False while the present key is not complete.

        After a failed renegotiation the same key id is tried again, and the old key stays in use.
        """
        old = self._keys.primary
        if old is None or self._core.state is not SessionState.ESTABLISHED:
            return False
        if old.phase is KeyPhase.GENERATED:
            key_id = self._keys.make_lame(old, now)
        elif self._may_retry(old, now):
            # A client that knows both key messages knows that the server does, too: both take the next id.
            key_id = self._keys.replace_failed(old, now, is_ahead=old.is_exchanged)
        else:
            return False
        self._keys.open(key_id, trigger, Opcode.SOFT_RESET_V1, now)
        return True

    def answer(self, key_id: int, now: float) -> KeyState | None:
        """Answer the peer's soft reset; None if the key id or the time is wrong, and the reset to be dropped.

        Raises:
            RemoteProtocolError: `renegotiation_rate`, too soon after the last one.
        """
        old = self._keys.primary
        if old is None or self._core.state is not SessionState.ESTABLISHED:
            return None
        is_next = key_id == next_key_id(old.key_id)
        if is_next and old.phase is KeyPhase.GENERATED:
            self._charge_peer(now)
        if old.phase is KeyPhase.DEAD and self._keys.has_usable and now >= old.give_up_at:
            # The peer tries again. Or it had finished the negotiation that failed here, and wants the next.
            if key_id != old.key_id and not (is_next and old.is_exchanged):
                return None
            replacement = self._keys.replace_failed(old, now, is_ahead=is_next)
            return self._keys.open(replacement, "peer", Opcode.SOFT_RESET_V1, now)
        return self._keys.primary if is_next and self.begin("peer", now) else None

    def plan_retry(self, failed: KeyState, now: float) -> None:
        """Try again later, but not before the peer, too, has given the failed one up."""
        at = max(now, failed.give_up_at) + self._core.settings.hand_window
        self._core.timers.set(SessionTimer.RENEGOTIATION, at)

    def handle_timeout(self, now: float) -> None:
        if self._core.timers.take(SessionTimer.RENEGOTIATION, now):
            self.begin("time", now)

    def _may_retry(self, failed: KeyState, now: float) -> bool:
        """A server that knows both key messages cannot tell whether the client has finished: it waits."""
        return (
            failed.phase is KeyPhase.DEAD
            and self._keys.has_usable
            and now >= failed.give_up_at
            and not (failed.is_exchanged and self._core.settings.role is Role.SERVER)
        )

    def _charge_peer(self, now: float) -> None:
        """Refuse a renegotiation after a burst of them; the peer repeats its reset."""
        earned = (now - self._credited_at) / PEER_RENEGOTIATION_SECONDS
        self._peer_credit = min(float(PEER_RENEGOTIATIONS_BURST), self._peer_credit + earned)
        self._credited_at = now
        if self._peer_credit < 1.0:
            raise RemoteProtocolError("renegotiation_rate", "the peer renegotiates too often")
        self._peer_credit -= 1.0
