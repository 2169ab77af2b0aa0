"""A share of the processor: what may be spent on strangers while they flood this end.

No clock of its own: callers pass monotonic seconds, and how long the work took.
"""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.04
"""Of a processor, in the long run."""
BURST_SECONDS: Final = 0.2
"""At once: enough for thousands of clients that return together."""
LONGEST_SECONDS: Final = 0.001
"""What one packet costs at most; where it took longer, this thread had to wait for the processor."""


class WorkBudget:
    """Full at first. Whoever comes while something is left is served: chance decides in a flood."""

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left = BURST_SECONDS
        self._at = 0.0

    def has_some(self, now: float) -> bool:
        """Whether anything is left."""
        self._left = min(BURST_SECONDS, self._left + max(0.0, now - self._at) * SHARE)
        self._at = now
        return self._left > 0.0

    def spend(self, seconds: float, packets: int) -> None:
        """Packets of strangers took so long."""
        self._left -= min(seconds, packets * LONGEST_SECONDS)
