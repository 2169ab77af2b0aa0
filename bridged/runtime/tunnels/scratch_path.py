"""A path for trials: TAP, bridge, plain TAP, in a network namespace of its own that touches nothing.

Source: Linux `drivers/net/tun.c`, `net/bridge/br_ioctl.c`; unshare(2).
What is written into the first TAP behind a virtio-net header goes through the bridge and comes out of the
second one as plain frames: that has no offloads, so the kernel cuts super-frames and completes checksums.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
import time
from contextlib import ExitStack
from typing import Final, Self

from bridged.errors import BridgedError
from bridged.units import Seconds
from bridged_tap import TapAdapter, TapError, VirtioHeader, open_tap

_CLONE_NEWNET: Final = 0x40000000
_BRIDGE: Final = "br"
_ENDS: Final = ("in", "out")
_IFF_UP: Final = 1
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCBRADDBR: Final = 0x89A0
_SIOCBRADDIF: Final = 0x89A2
_IFREQ_OCTETS: Final = 40


class ScratchPath:
    """A context manager. Its namespace has no name, and vanishes with the last descriptor.

    `virtio_header_size`: bytes before each frame that is written.

    Raises:
        BridgedError: code `scratch`: not allowed (CAP_SYS_ADMIN, /dev/net/tun) or no bridge in this kernel.
    """

    virtio_header_size = VirtioHeader.SIZE

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._entry: TapAdapter | None = None
        self._exit: TapAdapter | None = None
        failures: list[Exception] = []
        # In a thread of its own, so that the caller's thread stays in its namespace.
        builder = threading.Thread(target=self._build, args=(failures,), name="scratch")
        builder.start()
        builder.join()
        if failures:
            self.close()
            raise BridgedError("scratch", f"no path for a trial: {failures[0]}") from failures[0]

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
        try:
            self._entry.write(packet)
        except TapError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0)) from error

    def read(self, count: int, patience: Seconds) -> list[bytes]:
        """Up to `count` frames that came out, in order; fewer where `patience` ends before."""
        assert self._exit is not None
        frames: list[bytes] = []
        deadline = time.monotonic() + patience
        while len(frames) < count:
            try:
                frames.append(self._exit.read(max(0.0, deadline - time.monotonic())))
            except TimeoutError:
                break
        return frames

    def _build(self, failures: list[Exception]) -> None:
        try:
            _unshare()
            entry, leave = (self._open(name) for name in _ENDS)
            entry.up()
            leave.up()
            _make_bridge(_BRIDGE, (entry.ifindex, leave.ifindex))
        except Exception as error:  # else it would end with the thread, unseen
            failures.append(error)
            return
        self._entry, self._exit = entry, leave

    def _open(self, name: str) -> TapAdapter:
        # No offloads are asked for: they are what a reader takes, and this kernel writes whatever it knows.
        tap = open_tap(name, virtio_header=name == _ENDS[0], lock=False)
        self._undo.callback(tap.close)
        return tap


def _make_bridge(name: str, ports: tuple[int, ...]) -> None:
    """A bridge with the kernel's defaults (no spanning tree), up, with these ports."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCBRADDBR, name.encode().ljust(16, b"\0"))
        for ifindex in ports:
            fcntl.ioctl(control, _SIOCBRADDIF, _ifreq(name, struct.pack("=i", ifindex)))
        (flags,) = struct.unpack_from("=H", fcntl.ioctl(control, _SIOCGIFFLAGS, _ifreq(name)), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, _ifreq(name, struct.pack("=H", flags | _IFF_UP)))


def _ifreq(name: str, value: bytes = b"") -> bytes:
    return (name.encode().ljust(16, b"\0") + value).ljust(_IFREQ_OCTETS, b"\0")


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
