"""Reading frames: at once, with a time limit, as an iterator, or in asyncio tasks.

Programs without asyncio do not load it.
Source: Linux `drivers/net/tun.c` for the refusals (tun_get_user, tun_chr_read_iter).
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from bridged_tap.errors import TapError

if TYPE_CHECKING:
    import asyncio

FRAME_SIZE: Final = 65535 + 14 + 4 + 12
"""Room for the largest super-frame: IP packet, Ethernet header, a VLAN tag, virtio-net header."""

REFUSALS: Final = {
    errno.EBADF: ("tap_closed", "the adapter is closed"),
    errno.EBADFD: ("tap_gone", "the adapter was deleted"),
    errno.ENODEV: ("tap_gone", "the adapter was deleted"),
}
_READS_IN_A_ROW: Final = 64
"""After this many frames that need no waiting, the event loop gets its turn."""


class Source:
    """One non-blocking descriptor that gives frames, and the tasks that wait for it.

    An event loop watches it only while a task waits: an unread frame costs an idle program nothing.
    """

    __slots__ = ("_loop", "_waiters", "descriptor", "name")

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self._waiters: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def take(self) -> bytes | None:
        """The next frame, or None.

        Raises:
            TapError: codes `tap_gone`, `tap_closed`, `tap_io`.
        """
        try:
            return os.read(self.descriptor, FRAME_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise refusal(self.name, "read", error) from error

    def close(self) -> None:
        """Wake the tasks that wait and close the descriptor. Idempotent."""
        self._unwatch()
        self._wake()
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def add(self, waiter: asyncio.Future[None]) -> None:
        """Give `waiter` a result when there is something to read.

        Raises:
            RuntimeError: a task of another event loop waits already.
        """
        loop = waiter.get_loop()
        if self._loop is not None and self._loop.is_closed():
            # Its tasks never run again, nor take their waiters back.
            self._waiters.clear()
            self._loop = None
        if self._loop is None:
            loop.add_reader(self.descriptor, self._wake)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(f"{self.name} is read in another event loop already")
        self._waiters.add(waiter)

    def discard(self, waiter: asyncio.Future[None]) -> None:
        """`waiter` waits no more."""
        self._waiters.discard(waiter)
        if not self._waiters:
            self._unwatch()

    def _unwatch(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self.descriptor)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)


class FrameReader:
    """The ways to read from an adapter or from one of its queues.

    `for frame in reader` and `async for frame in reader` give frames as they come, until the adapter is
    closed.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._turn = 0
        self._reads_in_a_row = 0

    def read(self, timeout: float | None = None) -> bytes:
        """Wait for the next frame and return it; `timeout` is in seconds, None waits for ever.

        Raises:
            TimeoutError: no frame came in time.
            TapError: codes `tap_gone`, `tap_closed`, `tap_io`.
        """
        frame = self.read_nowait()
        if frame is not None:
            return frame
        poll = select.poll()
        for source in self._sources:
            poll.register(source.descriptor, select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            poll.poll(None if left is None else left * 1000)
            frame = self.read_nowait()
            if frame is not None:
                return frame
            if left == 0.0:
                raise TimeoutError(f"{self._sources[0].name}: no frame within {timeout} s")

    def read_nowait(self) -> bytes | None:
        """Return the next frame, or None when none waits.

        Raises:
            TapError: codes `tap_gone`, `tap_closed`, `tap_io`.
        """
        for _ in self._sources:
            source = self._sources[self._turn]
            self._turn = (self._turn + 1) % len(self._sources)
            frame = source.take()
            if frame is not None:
                return frame
        return None

    async def receive(self) -> bytes:
        """As `read`, for asyncio. A cancelled call loses no frame: limit the time with `asyncio.timeout`.

        Several tasks of one event loop may wait; each frame goes to one of them.

        Raises:
            TapError: codes `tap_gone`, `tap_closed`, `tap_io`.
            RuntimeError: a task of another event loop waits.
        """
        if self._reads_in_a_row >= _READS_IN_A_ROW:
            import asyncio

            self._reads_in_a_row = 0
            await asyncio.sleep(0)
        while (frame := self.read_nowait()) is None:
            self._reads_in_a_row = 0
            await _readable(self._sources)
        self._reads_in_a_row += 1
        return frame

    def __iter__(self) -> Iterator[bytes]:
        try:
            while True:
                yield self.read()
        except TapError as error:
            if error.code != "tap_closed":
                raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield await self.receive()
        except TapError as error:
            if error.code != "tap_closed":
                raise


async def _readable(sources: Sequence[Source]) -> None:
    """Return when one of them may have something to read, or was closed."""
    import asyncio

    waiter = asyncio.get_running_loop().create_future()
    try:
        for source in sources:
            source.add(waiter)
        await waiter
    finally:
        for source in sources:
            source.discard(waiter)


def refusal(name: str, wish: str, error: OSError) -> TapError:
    """The TapError that says which wish for which adapter the kernel refused."""
    code, words = REFUSALS.get(error.errno or 0, ("tap_io", error.strerror or str(error)))
    return TapError(code, f"{name}: cannot {wish}: {words}", error.errno)
