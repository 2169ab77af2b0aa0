"""Batched reads and writes of the TAP, with or without the virtio-net header.

Source: Linux Documentation/networking/tuntap.rst; bridged/dataplane/contract.py, `TapPort`.
All system calls on the TAP are here. The descriptors stay the caller's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable, Set
from contextlib import suppress
from typing import Final

from bridged.dataplane.contract import COALESCE_KINDS, CoalesceKind, Direction, TapPort
from bridged.dataplane.portable.control.counters import BatchSizes
from bridged.dataplane.portable.headers.coalesce import Coalescer
from bridged.dataplane.portable.headers.segment import BadSuperFrame, segment
from bridged.dataplane.portable.headers.vnet import HEADER_OCTETS, NEEDS_CSUM, parse_vnet
from bridged.protocol.packets.occ import begins_as_housekeeping

SUPER_FRAME_OCTETS: Final = 65535 + 14 + 8
TAG_ROOM_OCTETS: Final = 8
LEAST_FRAME_OCTETS: Final = 14

MTU_PAUSE_SECONDS: Final = 0.1

_SIOCGIFMTU: Final = 0x8921
_TUNGETIFF: Final = 0x800454D2
_IFREQ: Final = struct.Struct("16sH22x")
_GONE: Final = frozenset({errno.EBADFD, errno.EBADF, errno.ENODEV, errno.ENXIO})
_SUPER_OFFLOADS: Final = frozenset({"tso4", "tso6", "tso_ecn", "uso4", "uso6"})


Drop = Callable[[Direction, str, int], None]


class TapGone(Exception):
    """The adapter vanished; `number` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class TapIo:
    """One attached TAP. `drop` counts lost frames by direction and reason.

    `largest_frame`: octets of the largest that it carries in one piece, with an Ethernet header and two tags,
    as far as is known: its MTU follows the LAN's (`carries`).
    `coalesce`: what to join into super-frames on the way to the TAP, of TCP; needs the virtio-net header.
    `has_refused`: the kernel did not take a super-frame, and from then on everything goes alone.
    """

    def __init__(self, port: TapPort, *, coalesce: Set[CoalesceKind] = COALESCE_KINDS, drop: Drop) -> None:
        self.port = port
        self.descriptor = port.fds[0]
        self.frames_per_write = BatchSizes()
        self._drop = drop
        self.header = port.virtio_header_size
        self.plain = bytes(self.header)
        kinds = coalesce & {"tcp4", "tcp6"} if self.header >= HEADER_OCTETS else frozenset()
        self._coalescer = Coalescer(self.header, kinds) if kinds else None
        self.has_refused = False
        self._asked_at = 0.0
        self._set_mtu(port.mtu)

    @property
    def coalesces(self) -> bool:
        return self._coalescer is not None

    def carries(self, octets: int, now: float) -> bool:
        """Whether it takes a frame; where it did not, its MTU is asked for again, a few times a second."""
        if octets > self.largest_frame and now - self._asked_at >= MTU_PAUSE_SECONDS:
            self._asked_at = now
            self._ask_mtu()
        return octets <= self.largest_frame

    def _ask_mtu(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking, suppress(OSError):
            answer = fcntl.ioctl(asking, _SIOCGIFMTU, _IFREQ.pack(self.port.name.encode(), 0))
            self._set_mtu(int.from_bytes(answer[16:20], sys.byteorder))

    def _set_mtu(self, mtu: int) -> None:
        largest = self.largest_frame = min(mtu + LEAST_FRAME_OCTETS + TAG_ROOM_OCTETS, SUPER_FRAME_OCTETS)
        if self.header and self.port.offloads & _SUPER_OFFLOADS:
            largest = SUPER_FRAME_OCTETS
        # One octet more than the largest shows a frame that was cut short.
        self.room = self.header + largest + 1

    def _without_cut(self, packets: list[bytes]) -> list[bytes]:
        """Those that were read whole: the MTU has grown, and the next will be."""
        whole = [packet for packet in packets if len(packet) < self.room]
        self._drop("transmit", "bad_length", len(packets) - len(whole))
        self._ask_mtu()
        return whole

    def read(self, descriptor: int, budget: int) -> list[bytes]:
        """Up to `budget` reads from one queue, as frames in order.

        Raises:
            TapGone: the adapter vanished.
        """
        packets: list[bytes] = []
        room = self.room
        read = os.read
        try:
            for _ in range(budget):
                packets.append(read(descriptor, room))  # noqa: PERF401 (what was read before an error is kept)
        except BlockingIOError:
            pass
        except OSError as error:
            if not packets:
                self.failed(descriptor, error)
        return self.sorted(packets)

    def sorted(self, packets: list[bytes]) -> list[bytes]:
        """The frames in what was read.

        Raises:
            TapGone: end of file; what was behind the descriptor has been closed.
        """
        if packets and not packets[-1]:
            raise TapGone(errno.ENODEV)
        if packets and max(map(len, packets)) >= self.room:
            packets = self._without_cut(packets)
        header = self.header
        if not header:
            return packets
        frames = [packet[header:] for packet in packets if not (packet[1] or packet[0] & NEEDS_CSUM)]
        if len(frames) == len(packets):
            return frames
        frames.clear()
        for packet in packets:
            if packet[1] or packet[0] & NEEDS_CSUM:
                self._segment(packet, frames)
            else:
                frames.append(packet[header:])
        return frames

    def write(self, frames: list[bytes]) -> None:
        """Write frames in order; each lost one is counted (`tap_full`, `tap_down`, `io_error`).

        Raises:
            TapGone: the adapter vanished.
        """
        descriptor = self.port.fds[0]
        write = os.write
        if self._coalescer is not None and len(frames) > 1:
            for packet, count in self._coalescer.coalesce(frames):
                self.frames_per_write.observe(count)
                try:
                    write(descriptor, packet)
                except OSError as error:
                    if error.errno == errno.EINVAL and count > 1:
                        self._write_refused(packet)
                    else:
                        self.failed(descriptor, error, count)
            return
        plain = self.plain
        self.frames_per_write.observe(1, len(frames))
        for frame in frames:
            try:
                write(descriptor, plain + frame)
            except OSError as error:
                self.failed(descriptor, error, 1)

    def _write_refused(self, packet: bytes) -> None:
        """The kernel does not take what it should (Linux 6.6.44 and others): write its frames one by one."""
        self.has_refused = True
        self._coalescer = None
        self.write(segment(parse_vnet(packet), packet[self.header :]))

    def is_gone(self) -> bool:
        """Whether the adapter is no longer behind the descriptors (rather than only down)."""
        return any(_is_gone(descriptor) for descriptor in self.port.fds)

    def _segment(self, packet: bytes, frames: list[bytes]) -> None:
        if packet[1] and begins_as_housekeeping(packet[self.header :]):
            self._drop("transmit", "housekeeping_magic", 1)
            return
        try:
            frames += segment(parse_vnet(packet), packet[self.header :])
        except BadSuperFrame:
            self._drop("transmit", "bad_length", 1)

    def failed(self, descriptor: int, error: OSError, frames: int = 0) -> None:
        """Count what was lost.

        Raises:
            TapGone: the adapter vanished.
        """
        number = error.errno or errno.EIO
        if number in _GONE or (number == errno.EIO and _is_gone(descriptor)):
            self._drop("receive", "tap_down", frames)
            raise TapGone(number)
        if number == errno.EIO:
            self._drop("receive", "tap_down", frames)  # administratively down: it may come back by itself
        elif number in (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM):
            self._drop("receive", "tap_full", frames)
        else:
            self._drop("receive", "io_error", frames)


def _is_gone(descriptor: int) -> bool:
    try:
        fcntl.ioctl(descriptor, _TUNGETIFF, _IFREQ.pack(b"", 0))
    except OSError:
        return True
    return False
