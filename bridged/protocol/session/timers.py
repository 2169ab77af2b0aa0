"""All deadlines of a session, in one table that answers "when next, and why".

Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bridged.units import KeyId, MonotonicSeconds

NEVER: Final = float("inf")


class SessionTimer(Enum):
    """What a session can wait for. The value is the reason in `Deadline`."""

    RETRANSMISSION = "retransmission"
    HANDSHAKE_WINDOW = "handshake window"
    KEY_CHANGE = "key change"
    KEY_RETIRES = "key retires"
    LAME_DUCK = "lame duck"
    RENEGOTIATION = "renegotiation"
    PUSH_REQUEST = "push request"
    PUSH_REPLY = "push reply"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Deadline:
    """When `handle_timeout` wants to be called next, and why."""

    at: MonotonicSeconds
    reason: str


class TimerTable:
    """One row for each timer that runs; a timer of a key has a row for each key id.

    The parts of a session set, stop and take their timers. `Session.poll_timeout` asks `next`.
    """

    def __init__(self) -> None:
        self._due_at: dict[tuple[SessionTimer, KeyId | None], float] = {}

    def set(self, timer: SessionTimer, at: float, key_id: KeyId | None = None) -> None:
        """Start this timer, or move it to another time."""
        self._due_at[timer, key_id] = at

    def stop(self, timer: SessionTimer, key_id: KeyId | None = None) -> bool:
        """Stop this timer; False if it was not running."""
        return self._due_at.pop((timer, key_id), None) is not None

    def stop_all(self, timer: SessionTimer) -> None:
        """Stop this timer for all key ids."""
        for row in [row for row in self._due_at if row[0] is timer]:
            del self._due_at[row]

    def hasten_all(self, timer: SessionTimer, at: float) -> None:
        """Let this timer run out at `at` at the latest, for all key ids."""
        for row, due_at in self._due_at.items():
            if row[0] is timer:
                self._due_at[row] = min(due_at, at)

    def at(self, timer: SessionTimer, key_id: KeyId | None = None) -> float:
        """When this timer runs out; NEVER if it is not running."""
        return self._due_at.get((timer, key_id), NEVER)

    def is_due(self, timer: SessionTimer, now: float, key_id: KeyId | None = None) -> bool:
        """Whether this timer has run out; it keeps its row."""
        return now >= self.at(timer, key_id)

    def take(self, timer: SessionTimer, now: float, key_id: KeyId | None = None) -> bool:
        """Whether this timer has run out; then its row is removed."""
        return self.is_due(timer, now, key_id) and self.stop(timer, key_id)

    def due_keys(self, timer: SessionTimer, now: float) -> list[KeyId]:
        """The key ids for which this timer has run out."""
        return [
            key_id
            for (row, key_id), at in self._due_at.items()
            if row is timer and key_id is not None and now >= at
        ]

    def next(self, timers: Collection[SessionTimer] = tuple(SessionTimer)) -> Deadline | None:
        """The earliest deadline of these timers; None if none of them runs."""
        rows = [(at, timer) for (timer, _), at in self._due_at.items() if timer in timers]
        if not rows:
            return None
        at, timer = min(rows, key=lambda row: row[0])
        return Deadline(MonotonicSeconds(at), timer.value)
