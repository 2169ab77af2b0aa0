"""Bounds of times, and of work in a time. Mark the test `measures`: see tests/measuring.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.lab.waiting import NotInTime


def at_most(value: float, most: float, what: str, unit: str = "s") -> None:
    """Hold a bound of a time, or of what a slow machine makes larger in the same way: pings lost in a gap.

    Raises:
        NotInTime: it took longer.
    """
    if value > most:
        raise NotInTime(f"{what}: {value:.3f} {unit}, at most {most:.6g} {unit}")


def at_least(value: float, least: float, what: str) -> None:
    """Hold a bound of what is done in a given time, which a slow machine makes smaller.

    Raises:
        NotInTime: less was done.
    """
    if value < least:
        raise NotInTime(f"{what}: {value:.6g}, at least {least:.6g}")


def at_most_or(
    value: float, most: float, share: float, reference: Callable[[], float], what: str, unit: str = "s"
) -> None:
    """Hold a bound; on a slow machine `share` times what the reference takes there, in the same unit.

    `reference`: work of the same kind that is not ours (tests/lab/references.py). It is asked only if needed.

    Raises:
        NotInTime: it took longer.
    """
    if value > most:
        took = reference()
        at_most(value, max(most, share * took), f"{what} (the reference took {took:.3f} {unit})", unit)


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
