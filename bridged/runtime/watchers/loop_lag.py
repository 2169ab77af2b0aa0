"""How late the event loop is: the first sign of a control plane that does too much at once."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import Final

from bridged.dataplane.contract import Histogram
from bridged.supervision import SUPERVISOR, Timer

BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
INTERVAL_SECONDS: Final = 1.0


class LoopLag:
    """Observes how late, in seconds, a repeated timer fires."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0
        self._timer: Timer | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begin, in the running loop."""
        self._due = asyncio.get_running_loop().time() + INTERVAL_SECONDS
        self._timer = SUPERVISOR.every("loop_lag", INTERVAL_SECONDS, self._observe)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def snapshot(self) -> Histogram:
        return Histogram(BOUNDS, tuple(self._counts), self._total)

    def _observe(self) -> None:
        now = asyncio.get_running_loop().time()
        late = max(0.0, now - self._due)
        self._due = now + INTERVAL_SECONDS
        self._counts[bisect_left(BOUNDS, late)] += 1
        self._total += late
