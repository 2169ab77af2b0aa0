"""Limits log lines that others can cause: a burst, then one every few seconds. The rest is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LINES_BURST: Final = 20.0
LINE_SECONDS: Final = 3.0


class LogBudget:
    """Call `take` before each line. `clock` gives monotonic seconds."""

    def __init__(
        self, clock: Callable[[], float], burst: float = LINES_BURST, seconds: float = LINE_SECONDS
    ) -> None:
        self._clock = clock
        self._burst = burst
        self._seconds = seconds
        self._left = burst
        self._at = clock()
        self._suppressed = 0

    def take(self) -> dict[str, int] | None:
        """None: do not log. Else fields for the line: `suppressed` counts the lines dropped before it."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) / self._seconds)
        self._at = now
        if self._left < 1.0:
            self._suppressed += 1
            return None
        self._left -= 1.0
        suppressed, self._suppressed = self._suppressed, 0
        return {"suppressed": suppressed} if suppressed else {}
