"""`--confirm`: undo all network changes, unless somebody confirms them in time."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from bridged.supervision import SUPERVISOR, Timer
from bridged.units import UnixSeconds


class Confirmation:
    """Calls `stop` when `seconds` have passed without `confirm` (None: nobody needs to confirm).

    `deadline`: when it will do so (None: there is nothing to confirm, or no longer).
    """

    def __init__(self, seconds: float | None, stop: Callable[[], None]) -> None:
        self.deadline: UnixSeconds | None = None
        self.has_expired = False
        self._seconds = seconds
        self._stop = stop
        self._timer: Timer | None = None
        self._log = structlog.get_logger("bridged")

    def begin(self) -> None:
        """The network has been changed."""
        if self._seconds is None:
            return
        self.deadline = UnixSeconds(time.time() + self._seconds)
        self._timer = SUPERVISOR.after("confirmation", self._seconds, self._expire)
        self._log.warning("confirmation_needed", seconds=self._seconds, command="bridged confirm")

    def _expire(self) -> None:
        self._log.error("not_confirmed", detail="all network changes are undone")
        self.has_expired = True
        self._stop()

    def confirm(self) -> bool:
        """False: there was nothing to confirm."""
        if self._timer is None:
            return False
        self._timer.cancel()
        self._timer = None
        self.deadline = None
        self._log.info("confirmed")
        return True

    def end(self) -> None:
        """The daemon stops: what it changed is undone in any case. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
