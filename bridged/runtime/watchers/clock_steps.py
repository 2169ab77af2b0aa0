"""Reports steps of the wall clock as they happen: set by hand or by NTP, or after the machine slept.

Source: timerfd_create(2), TFD_TIMER_CANCEL_ON_SET.
Asyncio; one descriptor, no polling.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Final

import structlog

from bridged.supervision import SUPERVISOR

_CLOCK_REALTIME: Final = 0
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_TFD_TIMER_ABSTIME: Final = 1
_TFD_TIMER_CANCEL_ON_SET: Final = 2
STEP_SECONDS: Final = 0.001
"""Less is no step: the two clocks are not read at the same moment."""
LOOKS: Final = 5


class _Setting(ctypes.Structure):
    """struct itimerspec: seconds and nanoseconds of the interval, and of the first expiry."""

    _fields_ = (
        ("interval", ctypes.c_long * 2),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


LAST_SECOND: Final = (1 << (8 * ctypes.sizeof(ctypes.c_long) - 1)) - 1
"""The latest time that fits (January 2038 on 32-bit machines): until then no step lets the timer expire."""


class ClockSteps:
    """Calls `announce` after each step of the wall clock, between `start` and `close`."""

    def __init__(self, announce: Callable[[], None]) -> None:
        self._announce = announce
        self._descriptor = -1
        self._offset = 0.0
        self._log = structlog.get_logger("bridged")

    def start(self) -> None:
        """Begin, in the running event loop.

        Raises:
            OSError: the kernel provides no timer.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.timerfd_create(_CLOCK_REALTIME, _TFD_CLOEXEC | _TFD_NONBLOCK)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "no timer for steps of the clock")
        self.watch(descriptor, lambda: _arm(libc, descriptor))

    def watch(self, descriptor: int, arm: Callable[[], None]) -> None:
        """Listen to `descriptor`; `arm` sets its timer. `close` closes it."""
        self._descriptor = descriptor
        self._arm = arm
        self._offset = _offset()
        try:
            arm()
        except OSError:
            self.close()
            raise
        read = SUPERVISOR.guard("clock_steps", self._take)
        asyncio.get_running_loop().add_reader(descriptor, read)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        except OSError:
            # ECANCELED: the clock was set.
            pass
        self._arm()
        before, self._offset = self._offset, _offset()
        step = self._offset - before
        # Two wake-ups for one step count once.
        if abs(step) >= STEP_SECONDS:
            self._log.info("clock_set", seconds=round(step, 3))
            self._announce()


def _offset() -> float:
    """Difference between the wall clock and the monotonic clock, in seconds.

    Of several looks the one that was interrupted least.
    """
    looks = [(time.monotonic(), time.time(), time.monotonic()) for _ in range(LOOKS)]
    before, now, _ = min(looks, key=lambda look: look[2] - look[0])
    return now - before


def _arm(libc: ctypes.CDLL, descriptor: int) -> None:
    if time.time() >= LAST_SECOND:
        return  # it would expire at once, again and again
    at = _Setting(seconds=LAST_SECOND)
    flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
    if libc.timerfd_settime(descriptor, flags, ctypes.byref(at), None) != 0:
        number = ctypes.get_errno()
        if number != 125:  # ECANCELED: the clock was set at this moment; the timer is armed
            raise OSError(number, os.strerror(number))
