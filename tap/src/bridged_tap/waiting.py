"""Tasks that wait until an adapter has something to read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


class Readiness:
    """Wakes the tasks that wait for any of some descriptors; all of them in one event loop.

    The loop watches the descriptors only while a task waits: an unread frame costs an idle program nothing.
    """

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = descriptors
        self._waiters: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self) -> None:
        """Return when there may be something to read, or after `stop`.

        Raises:
            RuntimeError: a task of another event loop waits already.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            for descriptor in self._descriptors:
                loop.add_reader(descriptor, self._wake)
        elif self._loop is not loop:
            raise RuntimeError("the adapter is read in another event loop already")
        waiter = loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._waiters:
                self._unwatch()

    def stop(self) -> None:
        """Wake everybody; to be called before the descriptors are closed."""
        self._unwatch()
        self._wake()

    def _unwatch(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            for descriptor in self._descriptors:
                loop.remove_reader(descriptor)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)
