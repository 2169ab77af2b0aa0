"""Waiting for a condition: in a thread, and in an event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = float(os.environ.get("BRIDGED_LAB_PATIENCE", "3"))
"""All waiting takes so many times longer before it is given up: the machine may be busy, or emulated.

How long something may take is another matter: tests/lab/bounds.py.
"""

Result = TypeVar("Result")


class LabError(Exception):
    """The lab could not be built, or something in it did not come to be in time."""


class NotInTime(LabError):
    """It may come to be yet, but it did not within the time that the test gave it."""


def wait_for(
    condition: Callable[[], Result], what: str, seconds: float = 10.0, interval_seconds: float = 0.05
) -> Result:
    """Ask `condition` until its answer is true, and return that answer.

    Raises:
        NotInTime: it was not within `seconds`; the text names `what`.
    """
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        # Asked once more after the deadline: the machine may have stood still meanwhile.
        is_late = time.monotonic() > deadline
        answer = condition()
        if answer:
            return answer
        if is_late:
            raise NotInTime(f"not within {seconds} s: {what}")
        time.sleep(interval_seconds)


def in_time(seconds: float = 10.0) -> asyncio.Timeout:
    """As `asyncio.timeout`, for what is only given up: with PATIENCE."""
    return asyncio.timeout(seconds * PATIENCE)


async def until(
    condition: Callable[[], Result], what: str = "", seconds: float = 10.0, interval_seconds: float = 0.01
) -> Result:
    """As `wait_for`, in an event loop: the loop goes on, and so does what the test waits for."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        # Asked once more after the deadline: the machine may have stood still meanwhile.
        is_late = time.monotonic() > deadline
        answer = condition()
        if answer:
            return answer
        if is_late:
            raise NotInTime(f"not within {seconds} s: {what or condition}")
        await asyncio.sleep(interval_seconds)
