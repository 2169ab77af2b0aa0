"""Reads the TAP in batches, and cuts super-frames into frames.

Source: Linux Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import errno
import os

from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.headers.segment import BadSuperFrame, segment
from bridged.dataplane.portable.headers.vnet import NEEDS_CSUM, parse_vnet
from bridged.dataplane.portable.policy.from_lan import FromLan
from bridged.dataplane.portable.tap import Tap, TapGone


class TapReader:
    """Reads one adapter; what is lost on the way is counted in `drops`."""

    def __init__(self, tap: Tap, policy: FromLan, drops: DropCounter) -> None:
        self._tap = tap
        self._policy = policy
        self._drops = drops

    def read(self, descriptor: int, budget: int) -> list[bytes]:
        """The frames of up to `budget` reads from one queue, in order.

        Raises:
            TapGone: the adapter vanished.
        """
        packets: list[bytes] = []
        room = self._tap.room
        read = os.read
        try:
            for _ in range(budget):
                packets.append(read(descriptor, room))  # noqa: PERF401 (what was read before an error is kept)
        except BlockingIOError:
            pass
        except OSError as error:
            if not packets:
                self._tap.failed(descriptor, error)
        return self.frames_of(packets)

    def read_one(self, descriptor: int) -> tuple[bytes | None, list[bytes]]:
        """One read: a plain frame, or (None, frames) if the read needed work, found nothing or failed.

        Raises:
            TapGone: the adapter vanished.
        """
        tap = self._tap
        try:
            packet = os.read(descriptor, tap.room)
        except BlockingIOError:
            return None, []
        except OSError as error:
            tap.failed(descriptor, error)
            return None, []
        header = tap.header
        if not packet or len(packet) >= tap.room or (header and (packet[1] or packet[0] & NEEDS_CSUM)):
            return None, self.frames_of([packet])
        return packet[header:] if header else packet, []

    def frames_of(self, packets: list[bytes]) -> list[bytes]:
        """The frames in what was read. Super-frames are cut, and missing checksums completed.

        Raises:
            TapGone: end of file; what was behind the descriptor has been closed.
        """
        if packets and not packets[-1]:
            raise TapGone(errno.ENODEV)
        if packets and max(map(len, packets)) >= self._tap.room:
            packets = self._without_cut(packets)
        header = self._tap.header
        if not header:
            return packets
        frames = [packet[header:] for packet in packets if not (packet[1] or packet[0] & NEEDS_CSUM)]
        if len(frames) == len(packets):
            return frames
        frames.clear()
        for packet in packets:
            if packet[1] or packet[0] & NEEDS_CSUM:
                frames += self._cut(packet)
            else:
                frames.append(packet[header:])
        return frames

    def _without_cut(self, packets: list[bytes]) -> list[bytes]:
        """The packets that were read whole. The MTU has grown: the next read has room."""
        whole = [packet for packet in packets if len(packet) < self._tap.room]
        self._drops.count("transmit", "bad_length", len(packets) - len(whole))
        self._tap.ask_mtu()
        return whole

    def _cut(self, packet: bytes) -> list[bytes]:
        frame = packet[self._tap.header :]
        if packet[1] and not self._policy.admits_super_frame(frame):
            return []
        try:
            return segment(parse_vnet(packet), frame)
        except BadSuperFrame:
            self._drops.count("transmit", "bad_length")
            return []
