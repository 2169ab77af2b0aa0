"""Bounds of time that a test holds. Mark the test `measures`: tests/measuring.py says what that does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.waiting import NotInTime


def at_most(value: float, most: float, what: str, unit: str = "s") -> None:
    """Hold a bound of a time, or of what a slow machine makes larger in the same way: pings lost in a gap.

    Raises:
        NotInTime: it took longer.
    """
    if value > most:
        raise NotInTime(f"{what}: {value:.3f} {unit}, at most {most} {unit}")


@contextmanager
def takes_at_most(most: float, what: str) -> Iterator[None]:
    """The block may take so many seconds.

    Raises:
        NotInTime: it took longer.
    """
    began = time.monotonic()
    yield
    at_most(time.monotonic() - began, most, what)


class Pace:
    """Steps of a test itself that must follow each other quickly, for example within a keepalive time.

    Call `step` after each, before looking at what came of it: a test that was too slow proves nothing.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._last = time.monotonic()

    def step(self) -> None:
        """Raises:
        NotInTime: the step before was longer ago than `most` seconds.
        """
        now = time.monotonic()
        before, self._last = self._last, now
        at_most(now - before, self._most, "a step of the test")
