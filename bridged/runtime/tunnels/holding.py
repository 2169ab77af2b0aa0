"""Leaves LAN frames in the adapter while peers come back from a restart, ours or theirs. Asyncio.

Source: docs/decisions/0065. Up to `tap.queue_frames` frames are delivered late instead of being lost.
"""

from __future__ import annotations

from typing import Final, Protocol

from bridged.supervision import SUPERVISOR, Timer

HOLD_SECONDS: Final = 10.0
"""Longest wait for the first peer: a small or busy machine takes some seconds to start a daemon."""
STRAGGLER_SECONDS: Final = 0.25
"""Longest wait for the others, once the first one is back."""
READY_SECONDS: Final = 0.5
"""How long a server waits for a sign that its client has its key, too; only our own clients give one."""


class Holdable(Protocol):
    """What this needs of a data plane; see `DataPlane.hold`."""

    def hold(self, *, lan: bool, wan: bool) -> None: ...


class Holding:
    """Of one tunnel; `subject` is its name. `waits_for_sign`: peers get their keys later than we do."""

    def __init__(self, dataplane: Holdable, subject: str, *, waits_for_sign: bool) -> None:
        self._dataplane = dataplane
        self._subject = subject
        self._waits_for_sign = waits_for_sign
        self._signs = 0
        self._missing = 0
        self._timer: Timer | None = None

    @property
    def is_active(self) -> bool:
        return self._missing > 0 or self._signs > 0

    def begin(self, peers: int) -> None:
        """Wait for this many peers, which are about to come back; 0: nothing happens."""
        if peers <= 0:
            return
        self._missing = peers
        self._signs = peers if self._waits_for_sign else 0
        self._dataplane.hold(lan=True, wan=False)
        self._wait(HOLD_SECONDS)

    def note_established(self) -> None:
        """A peer is back."""
        if self._missing == 0:
            return
        self._missing -= 1
        if self._missing:
            self._wait(STRAGGLER_SECONDS)
        elif self._signs:
            self._wait(READY_SECONDS)
        else:
            self.end()

    def note_sign(self) -> None:
        """A peer said something on the data channel."""
        if self._signs == 0:
            return
        self._signs -= 1
        if self._signs == 0 and self._missing == 0:
            self.end()

    def end(self) -> None:
        """Read the adapter again. Idempotent."""
        self.close()
        self._dataplane.hold(lan=False, wan=False)

    def close(self) -> None:
        """Forget the timer; what is held stays so. Idempotent."""
        self._missing = self._signs = 0
        self._stop_timer()

    def _wait(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = SUPERVISOR.after("hold", seconds, self.end, self._subject)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
