"""One queue of an adapter: frames in and out of one descriptor.

Source: Linux `drivers/net/tun.c` for the refusals (tun_get_user, tun_chr_read_iter).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bridged_tap import kernel
from bridged_tap.errors import TapError

FRAME_OCTETS: Final = 65535 + 14 + 4 + 12
"""Room for the largest super-frame: IP packet, Ethernet header, a VLAN tag, virtio-net header."""

_KINDS: Final = {
    errno.EBADF: ("tap_closed", "the adapter is closed"),
    errno.EBADFD: ("tap_gone", "the adapter was deleted"),
    errno.EIO: ("tap_down", "the link is down; call up() first"),
    errno.EINVAL: ("tap_frame", "the kernel refuses this frame: too short, or a wrong virtio-net header"),
}


class Queue:
    """One descriptor of an adapter. Different threads may use different queues at the same time.

    The kernel keeps the frames of one flow on one queue: on the one that the program last wrote a frame of
    that flow to, else on one chosen by a hash.
    """

    __slots__ = ("_descriptor", "_name", "number")

    def __init__(self, number: int, descriptor: int, name: str) -> None:
        self.number = number
        self._descriptor = descriptor
        self._name = name

    def __repr__(self) -> str:
        return f"<Queue {self.number} of {self._name}>"

    def fileno(self) -> int:
        """The non-blocking descriptor, for `select`, `poll` or an event loop; -1 after `close`."""
        return self._descriptor

    def read_nowait(self) -> bytes | None:
        """The next frame of this queue; None when none waits.

        Raises:
            TapError: codes `tap_gone`, `tap_closed`, `tap_io`.
        """
        try:
            return os.read(self._descriptor, FRAME_OCTETS)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._failed("read", error) from error

    def readinto(self, buffer: bytearray | memoryview) -> int | None:
        """As `read_nowait`, into `buffer`: octets written there. What does not fit is lost.

        Raises:
            TapError: codes `tap_gone`, `tap_closed`, `tap_io`.
        """
        try:
            return os.readv(self._descriptor, (buffer,))
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._failed("read", error) from error

    def write(self, frame: bytes | bytearray | memoryview) -> int:
        """Give one frame to the kernel, whole and without waiting; returns its octets.

        Raises:
            TapError: codes `tap_down`, `tap_frame`, `tap_gone`, `tap_closed`, `tap_io`.
        """
        try:
            return os.write(self._descriptor, frame)
        except OSError as error:
            raise self._failed("write", error) from error

    def enable(self) -> None:
        """Let the kernel put frames on this queue again.

        Raises:
            TapError: code `tap_io`; the adapter is single-queue.
        """
        self._switch(True)

    def disable(self) -> None:
        """Let the kernel put no more frames on this queue; frames can still be written to it.

        Raises:
            TapError: code `tap_io`; the adapter is single-queue.
        """
        self._switch(False)

    def close(self) -> None:
        """Close the descriptor. Idempotent. `Adapter.close` does it for all queues."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _switch(self, on: bool) -> None:
        with kernel_refusals(self._name, f"{'enable' if on else 'disable'} queue {self.number}"):
            kernel.set_queue(self._descriptor, attached=on)

    def _failed(self, what: str, error: OSError) -> TapError:
        code, words = _KINDS.get(error.errno or 0, ("tap_io", error.strerror))
        return TapError(code, f"{self._name}: cannot {what}: {words}", error.errno)


@contextmanager
def kernel_refusals(name: str, wish: str) -> Iterator[None]:
    """An OSError inside becomes a TapError that says which wish for which adapter the kernel refused.

    Raises:
        TapError: codes `tap_closed`, `tap_gone`, `tap_io`.
    """
    try:
        yield
    except TapError:
        raise
    except OSError as error:
        code, words = "tap_io", error.strerror
        if error.errno in {errno.EBADF, errno.EBADFD, errno.ENODEV}:
            code, words = _KINDS[errno.EBADF if error.errno == errno.EBADF else errno.EBADFD]
        raise TapError(code, f"{name}: cannot {wish}: {words}", error.errno) from error
