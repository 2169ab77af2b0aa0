"""The lock between the loop and the control plane.

The loop holds it while it works on a batch, the control plane while it changes something. The loop steps back
when somebody waits: the control plane waits for one batch at most.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final

_STEP_BACK_SECONDS: Final = 0.00005
_STEP_BACK_TIMES: Final = 100


class Gate:
    """A lock in which one side, the loop, gives way to the other.

    The control plane uses it as a context manager. The loop takes `lock` itself, and calls `give_way` after
    each batch if anybody is `waiting`: without that it would take the lock again at once.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting = 0
        self._counting = threading.Lock()

    def __enter__(self) -> None:
        with self._counting:
            self.waiting += 1
        self.lock.acquire()
        with self._counting:
            self.waiting -= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock.release()

    def give_way(self) -> None:
        """Let those who wait go first (for 5 ms at most)."""
        for _ in range(_STEP_BACK_TIMES):
            if not self.waiting:
                return
            time.sleep(_STEP_BACK_SECONDS)
