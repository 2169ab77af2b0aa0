"""One queue of an adapter: frames in and out of one descriptor."""

from __future__ import annotations

import errno
import os
from typing import Final

from bridged_tap import kernel
from bridged_tap.errors import TapError
from bridged_tap.reading import FrameReader, Source, refusal

_WRITE_REFUSALS: Final = {
    errno.EIO: ("tap_down", "the link is down; call up() first"),
    errno.EINVAL: ("tap_frame", "the kernel refuses this frame: too short, or a wrong virtio-net header"),
}


class Queue(FrameReader):
    """One queue of an adapter. Different threads may use different queues at the same time.

    The kernel keeps the frames of one flow on one queue: the one that the program last wrote a frame of that
    flow to, else one chosen by a hash. It reads like an adapter; `number` is its index in `Adapter.queues`.
    """

    def __init__(self, number: int, source: Source, *, is_enabled: bool = True) -> None:
        super().__init__((source,))
        self.number = number
        self._source = source
        self._is_enabled = is_enabled

    def __repr__(self) -> str:
        return f"<Queue {self.number} of {self._source.name}>"

    def fileno(self) -> int:
        """Return the non-blocking descriptor, for `select` and others; -1 after the adapter was closed."""
        return self._source.descriptor

    def readinto(self, buffer: bytearray | memoryview) -> int | None:
        """As `read_nowait`, but into `buffer`; return the number of bytes. What does not fit is lost.

        Raises:
            TapError: codes `tap_gone`, `tap_closed`, `tap_io`.
        """
        try:
            return os.readv(self._source.descriptor, (buffer,))
        except BlockingIOError:
            return None
        except OSError as error:
            raise refusal(self._source.name, "read", error) from error

    def write(self, frame: bytes | bytearray | memoryview) -> int:
        """Give one frame to the kernel, whole and without waiting; return its size in bytes.

        Raises:
            TapError: codes `tap_down`, `tap_frame`, `tap_gone`, `tap_closed`, `tap_io`.
        """
        try:
            return os.write(self._source.descriptor, frame)
        except OSError as error:
            code, words = _WRITE_REFUSALS.get(error.errno or 0, ("", ""))
            if code:
                raise TapError(code, f"{self._source.name}: cannot write: {words}", error.errno) from error
            raise refusal(self._source.name, "write", error) from error

    @property
    def is_enabled(self) -> bool:
        """The kernel puts frames on this queue."""
        return self._is_enabled

    def enable(self) -> None:
        """Let the kernel put frames on this queue again. Idempotent.

        Raises:
            TapError: code `tap_io`; the adapter is single-queue.
        """
        self._switch(True)

    def disable(self) -> None:
        """Let the kernel put no more frames on this queue. Frames can still be written to it. Idempotent.

        Raises:
            TapError: code `tap_io`; the adapter is single-queue.
        """
        self._switch(False)

    def _switch(self, on: bool) -> None:
        if on == self._is_enabled:
            return
        try:
            kernel.set_queue(self._source.descriptor, attached=on)
        except (OSError, ValueError) as error:
            number = error if isinstance(error, OSError) else OSError(errno.EBADF, str(error))
            wish = f"{'enable' if on else 'disable'} queue {self.number}"
            raise refusal(self._source.name, wish, number) from error
        self._is_enabled = on
