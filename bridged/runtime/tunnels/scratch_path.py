"""A path for trials: TAP, bridge, plain TAP, in a network namespace of its own that touches nothing.

Source: Linux `drivers/net/tun.c`, `net/bridge/br_ioctl.c`; unshare(2).
What is written into the first TAP behind a virtio-net header goes through the bridge and comes out of the
second one as plain frames: that has no offloads, so the kernel cuts super-frames and completes checksums.
"""

from __future__ import annotations

import ctypes
import os
import select
import threading
import time
from contextlib import ExitStack
from typing import Final, Self

from bridged.errors import TapError
from bridged.units import Seconds
from bridged_tap import kernel
from bridged_tap.adapter import TapAdapter
from bridged_tap.opening import open_tap
from bridged_tap.settings import TapSettings

_CLONE_NEWNET: Final = 0x40000000
_BRIDGE: Final = "br"
_ENDS: Final = ("in", "out")
_HEADER_OCTETS: Final = 10
_FRAME_ROOM: Final = 65536 + 64


class ScratchPath:
    """The path; a context manager. The namespace has no name, and goes with the last descriptor.

    `virtio_header_size` is what stands before each frame written.

    Raises:
        TapError: code `scratch`: not allowed (CAP_SYS_ADMIN, /dev/net/tun) or no bridge in this kernel.
    """

    virtio_header_size = _HEADER_OCTETS

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._entry: TapAdapter | None = None
        self._exit: TapAdapter | None = None
        failures: list[Exception] = []
        # A thread of its own: the namespace of the caller's stays what it is.
        builder = threading.Thread(target=self._build, args=(failures,), name="scratch")
        builder.start()
        builder.join()
        if failures:
            self.close()
            raise TapError("scratch", f"no path for a trial: {failures[0]}") from failures[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything up. Idempotent."""
        self._undo.close()

    def write(self, packet: bytes) -> None:
        """Put one frame, with its virtio-net header, into the first TAP.

        Raises:
            OSError: as the kernel said it (EINVAL: it does not take such a super-frame).
        """
        assert self._entry is not None
        self._entry.write(packet)

    def read(self, count: int, patience: Seconds) -> list[bytes]:
        """Up to `count` frames that came out, in order; fewer where `patience` ends before."""
        assert self._exit is not None
        frames: list[bytes] = []
        waiting = select.poll()
        waiting.register(self._exit.fileno(), select.POLLIN)
        deadline = time.monotonic() + patience
        while len(frames) < count:
            try:
                frames.append(self._exit.read(_FRAME_ROOM))
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not waiting.poll(left * 1000):
                    break
        return frames

    def _build(self, failures: list[Exception]) -> None:
        try:
            _unshare()
            entry, leave = (self._open(name) for name in _ENDS)
            with kernel.LinkControl() as control:
                control.add_bridge(_BRIDGE)
                for name in _ENDS:
                    control.set_up(name, True)
                    control.add_bridge_port(_BRIDGE, name)
                control.set_up(_BRIDGE, True)
        except Exception as error:  # else it would end with the thread, unseen
            failures.append(error)
            return
        self._entry, self._exit = entry, leave

    def _open(self, name: str) -> TapAdapter:
        # No offloads are asked for: they are what a reader takes, and this kernel writes whatever it knows.
        tap = open_tap(TapSettings(name, virtio_header=name == _ENDS[0], lock=False))
        self._undo.callback(tap.close)
        return tap


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
