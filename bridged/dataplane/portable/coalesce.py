"""Frames on their way to the TAP become super-frames: consecutive TCP segments of one flow in one write.

Source: the merging rules of Linux's tcp_gro_receive, made stricter until the kernel's own segmentation
(tcp_gso_segment) gives back every frame octet for octet: same headers but for length, identification,
sequence number and checksums, no flags but ACK, ECE and a closing PSH, and *good checksums*. A super-frame
says NEEDS_CSUM, which makes the kernel vouch for the sums; a frame with a wrong one is therefore left alone.
Pure: octets in, octets out.
"""

from __future__ import annotations

import struct
from typing import Final

from bridged.dataplane.portable.checksum import checksum_octets, partial_octets, swapped, word_sum
from bridged.dataplane.portable.vnet import GSO_TCPV4, GSO_TCPV6, VnetHeader, serialize_vnet

MAX_DATAGRAM_OCTETS: Final = 65535
"""Of the IP packet in a super-frame."""

_ACK: Final = 0x10
_PSH: Final = 0x08
_OTHER_FLAGS: Final = 0xFF & ~(_PSH | 0x40)
_TCP: Final = 6
_PLAIN_IPV6: Final = (6, 17, 58)
_TCP_WORD: Final = swapped(_TCP)
_V4_START: Final = b"\x08\x00\x45"
_V6_START: Final = b"\x86\xdd"
_V4_TCP_AT: Final = 34
_V6_TCP_AT: Final = 54
_V4_LEAST: Final = _V4_TCP_AT + 20
_V6_LEAST: Final = _V6_TCP_AT + 20
# length, identification, header checksum, sequence number, data offset, flags
_V4_FIELDS: Final = struct.Struct("!16xHH4xH12xI4xBB").unpack_from
# length, sequence number, data offset, flags
_V6_FIELDS: Final = struct.Struct("!18xH38xI4xBB").unpack_from
_MORE_OR_OFFSET: Final = 0x3F


class _Run:
    """Segments of one flow that make one super-frame so far; `expected` is the next sequence number."""

    __slots__ = ("expected", "frames", "identity", "masked", "octets", "psh", "size", "start", "sum")

    def __init__(self, frame: bytes, start: int, masked: int, size: int, expected: int, octets: int) -> None:
        self.frames = [frame]
        self.start = start
        self.masked = masked
        self.size = size
        self.expected = expected
        self.octets = octets
        self.psh = False
        self.identity = 0
        self.sum = 0


class Coalescer:
    """Turns batches of frames into TAP writes; keeps nothing between batches but masks.

    `vnet_octets` is the length of the virtio-net header, 10 or 12.
    """

    def __init__(self, vnet_octets: int) -> None:
        self._vnet_octets = vnet_octets
        self._plain = bytes(vnet_octets)
        self._masks: dict[tuple[int, int], int] = {}

    def coalesce(self, frames: list[bytes]) -> list[tuple[bytes, int]]:
        """What to write, each with the number of frames in it; the order within every flow is kept."""
        runs: dict[bytes, _Run] = {}
        order: list[bytes | _Run] = []
        for frame in frames:
            start = frame[12:15]
            if start == _V4_START and len(frame) > _V4_LEAST and frame[23] == _TCP:
                if not (frame[20] & _MORE_OR_OFFSET or frame[21]):
                    self._offer_v4(frame, runs, order)
                    continue
            elif start[:2] == _V6_START and len(frame) > _V6_LEAST and frame[20] == _TCP:
                self._offer_v6(frame, runs, order)
                continue
            if runs:
                _interrupt(frame, runs)
            order.append(frame)
        plain = self._plain
        return [(plain + item, 1) if isinstance(item, bytes) else self._written(item) for item in order]

    def _offer_v4(self, frame: bytes, runs: dict[bytes, _Run], order: list[bytes | _Run]) -> None:
        length, identity, header_sum, number, offset, flags = _V4_FIELDS(frame)
        key = frame[26:38]
        body = _V4_TCP_AT + (offset >> 2)
        size = len(frame) - body
        if (
            length != len(frame) - 14
            or size <= 0
            or offset & 0x0F
            or flags & _OTHER_FLAGS != _ACK
            or header_sum == 0xFFFF
        ):
            runs.pop(key, None)
            order.append(frame)
            return
        masked = int.from_bytes(frame[:body], "little") & self._mask(body, _V4_TCP_AT)
        run = runs.get(key)
        # One more in the identification is one less in the checksum; so is one more in the length.
        total = (header_sum + identity + length) % 0xFFFF
        if (
            run is not None
            and run.masked == masked
            and run.expected == number
            and run.identity == identity
            and run.sum == total
            and size <= run.size
            and run.octets + size <= MAX_DATAGRAM_OCTETS
            and _sum_is_good(frame, 26)
            and (len(run.frames) > 1 or _first_is_good(run))
        ):
            _append(run, frame, size, flags)
            run.identity = (identity + 1) & 0xFFFF
            if flags & _PSH or size < run.size:
                del runs[key]
            return
        if flags & _PSH:
            runs.pop(key, None)
            order.append(frame)
            return
        run = _Run(frame, _V4_TCP_AT, masked, size, (number + size) & 0xFFFFFFFF, length)
        run.identity = (identity + 1) & 0xFFFF
        run.sum = total
        runs[key] = run
        order.append(run)

    def _offer_v6(self, frame: bytes, runs: dict[bytes, _Run], order: list[bytes | _Run]) -> None:
        length, number, offset, flags = _V6_FIELDS(frame)
        key = frame[22:58]
        body = _V6_TCP_AT + (offset >> 2)
        size = len(frame) - body
        if length != len(frame) - 54 or size <= 0 or offset & 0x0F or flags & _OTHER_FLAGS != _ACK:
            runs.pop(key, None)
            order.append(frame)
            return
        masked = int.from_bytes(frame[:body], "little") & self._mask(body, _V6_TCP_AT)
        run = runs.get(key)
        if (
            run is not None
            and run.masked == masked
            and run.expected == number
            and size <= run.size
            and run.octets + size <= MAX_DATAGRAM_OCTETS
            and _sum_is_good(frame, 22)
            and (len(run.frames) > 1 or _first_is_good(run))
        ):
            _append(run, frame, size, flags)
            if flags & _PSH or size < run.size:
                del runs[key]
            return
        if flags & _PSH:
            runs.pop(key, None)
            order.append(frame)
            return
        run = _Run(frame, _V6_TCP_AT, masked, size, (number + size) & 0xFFFFFFFF, length)
        runs[key] = run
        order.append(run)

    def _mask(self, body: int, start: int) -> int:
        """Of the headers' octets as one little-endian number: 0 where segments of one run differ."""
        mask = self._masks.get((body, start))
        if mask is None:
            octets = bytearray(b"\xff" * body)
            if start == _V4_TCP_AT:
                octets[16:20] = bytes(4)
                octets[24:26] = bytes(2)
            else:
                octets[18:20] = bytes(2)
            octets[start + 4 : start + 8] = bytes(4)
            octets[start + 13] &= ~_PSH
            octets[start + 16 : start + 18] = bytes(2)
            mask = self._masks[body, start] = int.from_bytes(octets, "little")
        return mask

    def _written(self, run: _Run) -> tuple[bytes, int]:
        """The write for a run: a super-frame, or the frame itself where it stayed alone."""
        frames = run.frames
        if len(frames) == 1:
            return self._plain + frames[0], 1
        start = run.start
        body = len(frames[0]) - run.size
        head = bytearray(frames[0][:body])
        is_v4 = start == _V4_TCP_AT
        tcp_length = run.octets - 20 if is_v4 else run.octets
        if is_v4:
            head[16:18] = run.octets.to_bytes(2, "big")
            head[24:26] = b"\0\0"
            head[24:26] = checksum_octets(word_sum(head[14:34]))
        else:
            head[18:20] = run.octets.to_bytes(2, "big")
        if run.psh:
            head[start + 13] |= _PSH
        addresses = head[26:34] if is_v4 else head[22:54]
        head[start + 16 : start + 18] = partial_octets(word_sum(addresses) + _TCP_WORD + swapped(tcp_length))
        header = VnetHeader(True, GSO_TCPV4 if is_v4 else GSO_TCPV6, False, body, run.size, start, 16)
        parts: list[bytes | bytearray] = [serialize_vnet(header, self._vnet_octets), head]
        parts += [frame[body:] for frame in frames]
        return b"".join(parts), len(frames)


def _interrupt(frame: bytes, runs: dict[bytes, _Run]) -> None:
    """End the runs that a frame which is not to be merged may belong to, so that it is not overtaken."""
    ethertype = frame[12:14]
    if ethertype == b"\x08\x00":
        if frame[14:15] != b"\x45" or len(frame) < _V4_TCP_AT + 4 or frame[20] & _MORE_OR_OFFSET or frame[21]:
            runs.clear()  # a fragment, or options: which flow it is of is not worth finding out
        else:
            runs.pop(frame[26:38], None)
    elif ethertype == _V6_START:
        if len(frame) < _V6_TCP_AT + 4 or frame[20] not in _PLAIN_IPV6:
            runs.clear()
        else:
            runs.pop(frame[22:58], None)


def _append(run: _Run, frame: bytes, size: int, flags: int) -> None:
    run.frames.append(frame)
    run.octets += size
    run.expected = (run.expected + size) & 0xFFFFFFFF
    run.psh = bool(flags & _PSH)


def _first_is_good(run: _Run) -> bool:
    """Asked only when a second frame comes: most runs of interactive traffic stay alone."""
    frame = run.frames[0]
    if run.start == _V6_TCP_AT:
        return _sum_is_good(frame, 22)
    return word_sum(frame[14:34]) == 0 and _sum_is_good(frame, 26)


def _sum_is_good(frame: bytes, addresses: int) -> bool:
    """The TCP checksum is right, and written as the kernel would write it (0, not FFFF).

    `addresses` is where the IP addresses begin: 26 in IPv4, 22 in IPv6.
    """
    start = _V4_TCP_AT if addresses == 26 else _V6_TCP_AT
    if frame[start + 16 : start + 18] == b"\xff\xff":
        return False
    return (word_sum(frame[addresses:]) + _TCP_WORD + swapped(len(frame) - start)) % 0xFFFF == 0
