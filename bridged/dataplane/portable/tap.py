"""The TAP adapter of a data plane: what it carries, and what its errors mean.

Source: Linux Documentation/networking/tuntap.rst; bridged/dataplane/contract/settings.py, `TapPort`.
`lan_to_wan.reader` reads it and `wan_to_lan.tap_writer` writes it. The descriptors stay the caller's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from contextlib import suppress
from typing import Final

from bridged.dataplane.contract import TapPort
from bridged.dataplane.portable.control.counters import DropCounter

SUPER_FRAME_OCTETS: Final = 65535 + 14 + 8
TAG_ROOM_OCTETS: Final = 8
ETHERNET_OCTETS: Final = 14
MTU_PAUSE_SECONDS: Final = 0.1

_SIOCGIFMTU: Final = 0x8921
_TUNGETIFF: Final = 0x800454D2
_IFREQ: Final = struct.Struct("16sH22x")
_GONE: Final = frozenset({errno.EBADFD, errno.EBADF, errno.ENODEV, errno.ENXIO})
_SUPER_OFFLOADS: Final = frozenset({"tso4", "tso6", "tso_ecn", "uso4", "uso6"})


class TapGone(Exception):
    """The adapter vanished; `number` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Tap:
    """One attached adapter.

    `largest_frame`: bytes of the largest frame that it carries in one piece, with an Ethernet header and two
    tags, as far as is known: its MTU follows the LAN's. `room`: bytes to read at once, one more than the
    largest read, which shows what was cut short. `header`: bytes of the virtio-net header.
    """

    def __init__(self, port: TapPort, drops: DropCounter) -> None:
        self.port = port
        self.header = port.virtio_header_size
        self._drops = drops
        self._asked_at = 0.0
        self._set_mtu(port.mtu)

    def carries(self, octets: int, now: float) -> bool:
        """Whether it takes a frame of this size. If not, it reads the MTU again (10 times a second)."""
        if octets > self.largest_frame and now - self._asked_at >= MTU_PAUSE_SECONDS:
            self._asked_at = now
            self.ask_mtu()
        return octets <= self.largest_frame

    def ask_mtu(self) -> None:
        """Read the MTU again; it does not change if the adapter is gone."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking, suppress(OSError):
            answer = fcntl.ioctl(asking, _SIOCGIFMTU, _IFREQ.pack(self.port.name.encode(), 0))
            self._set_mtu(int.from_bytes(answer[16:20], sys.byteorder))

    def failed(self, descriptor: int, error: OSError, frames: int = 0) -> None:
        """Count the `frames` that a failed call lost (`tap_full`, `tap_down`, `io_error`).

        Raises:
            TapGone: the adapter vanished.
        """
        number = error.errno or errno.EIO
        if number in _GONE or (number == errno.EIO and _is_gone(descriptor)):
            self._drops.count("receive", "tap_down", frames)
            raise TapGone(number)
        if number == errno.EIO:
            # Administratively down: it may come back by itself.
            self._drops.count("receive", "tap_down", frames)
        elif number in (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM):
            self._drops.count("receive", "tap_full", frames)
        else:
            self._drops.count("receive", "io_error", frames)

    def _set_mtu(self, mtu: int) -> None:
        largest = self.largest_frame = min(mtu + ETHERNET_OCTETS + TAG_ROOM_OCTETS, SUPER_FRAME_OCTETS)
        if self.header and self.port.offloads & _SUPER_OFFLOADS:
            largest = SUPER_FRAME_OCTETS
        self.room = self.header + largest + 1


def _is_gone(descriptor: int) -> bool:
    try:
        fcntl.ioctl(descriptor, _TUNGETIFF, _IFREQ.pack(b"", 0))
    except OSError:
        return True
    return False
