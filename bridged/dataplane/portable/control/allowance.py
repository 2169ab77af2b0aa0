"""A token bucket: a number at once, and a number a second in the long run.

No clock of its own: callers pass `now` in monotonic seconds.
"""

from __future__ import annotations


class Allowance:
    """Full at first. A clock that steps back gives nothing."""

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = self._tokens = burst
        self._per_second = per_second
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take a token; False if there is none."""
        gained = max(0.0, now - self._at) * self._per_second
        self._tokens = min(self._burst, self._tokens + gained)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
