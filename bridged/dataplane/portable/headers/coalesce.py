"""Joins frames for the TAP into super-frames: consecutive TCP segments of one flow in one write.

Source: the rules of Linux's tcp_gro_receive, made stricter until the kernel's own segmentation
(tcp_gso_segment) gives back every frame unchanged: same headers except length, identification, sequence
number and checksums; no flags but ACK, ECE and a closing PSH; *good checksums*. The kernel computes the
checksums of a super-frame (NEEDS_CSUM): a frame with a wrong one is therefore left alone. Pure: bytes in,
bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

from bridged.checksum import checksum_octets, partial_octets, swapped, word_sum
from bridged.dataplane.portable.headers.vnet import GSO_TCPV4, GSO_TCPV6, VnetHeader, serialize_vnet

LENGTHS_REMEMBERED: Final = 256
MAX_DATAGRAM_OCTETS: Final = 65535
"""Bytes of the IP packet in a super-frame (IPv6: of its payload)."""

_ACK: Final = 0x10
_PSH: Final = 0x08
_OTHER_FLAGS: Final = 0xFF & ~(_PSH | 0x40)
_TCP: Final = 6
_PLAIN_IPV6: Final = (6, 17, 58)
_TCP_WORD: Final = swapped(_TCP)
_IPV4: Final = b"\x08\x00"
_IPV4_START: Final = b"\x08\x00\x45"
_IPV6: Final = b"\x86\xdd"
_MORE_OR_OFFSET: Final = 0x3F
_NOT_CANONICAL: Final = b"\xff\xff"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Offsets in an untagged frame with IPv4 without options, or IPv6 without extension headers.

    `fields` unpacks length, identification and header checksum (not in IPv6), sequence number, offset, flags.
    `length_at` is the length field; what it counts begins at `counted_from`. The checksum is over `words`.
    The headers up to the TCP checksum, read as one number, grow by `step` from one segment to the next, plus
    the payload's size in the sequence number.
    """

    gso_type: int
    length_at: int
    counted_from: int
    addresses: int
    tcp: int
    step: int
    fields: struct.Struct
    key: slice = field(init=False)
    head: slice = field(init=False)
    words: slice = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", slice(self.addresses, self.tcp + 4))
        object.__setattr__(self, "head", slice(0, self.tcp + 16))
        object.__setattr__(self, "words", slice(self.addresses, None))


# One more in the identification is one less in the header checksum. Numbers are big-endian and end
# before the TCP checksum, 50 bytes into the frame: identification at 18, checksum at 24.
_V4: Final = _Layout(
    GSO_TCPV4, 16, 14, 26, 34, (1 << 8 * (50 - 20)) - (1 << 8 * (50 - 26)), struct.Struct("!16xHH4xH12xI4xBB")
)
_V6: Final = _Layout(GSO_TCPV6, 18, 54, 22, 54, 0, struct.Struct("!18xH38xI4xBB"))
_SEQUENCE_SHIFT: Final = 8 * 8
"""8 bytes lie between the end of the sequence number and the TCP checksum."""


class _Run:
    """Segments of one flow that are one super-frame so far.

    `next_head`: what the next full segment must have up to its TCP checksum; `tail`: its bytes between that
    and the payload. `room`: how many full segments still fit.
    """

    __slots__ = (
        "body",
        "expected",
        "frames",
        "identity",
        "layout",
        "masked",
        "next_head",
        "octets",
        "psh",
        "room",
        "size",
        "step",
        "sum",
        "tail",
    )

    def __init__(self, frame: bytes, layout: _Layout, body: int, masked: int, number: int) -> None:
        self.frames = [frame]
        self.layout = layout
        self.body = body
        self.masked = masked
        self.size = len(frame) - body
        self.octets = len(frame) - layout.counted_from
        self.room = (MAX_DATAGRAM_OCTETS - self.octets) // self.size
        self.psh = False
        self.tail = frame[layout.tcp + 18 : body]
        self.step = layout.step + (self.size << _SEQUENCE_SHIFT)
        self.expected = number
        self.identity = 0
        self.sum = 0
        self.next_head = -1

    def follow(self, frame: bytes, number: int, identity: int) -> None:
        """Note the last segment: the next one must continue it."""
        self.expected = (number + self.size) & 0xFFFFFFFF
        self.identity = (identity + 1) & 0xFFFF
        self.next_head = int.from_bytes(frame[self.layout.head], "big") + self.step


class Coalescer:
    """Turns batches of frames into TAP writes; it keeps nothing between batches but masks.

    `vnet_octets`: bytes of the virtio-net header, 10 or 12. `kinds`: what to join, of `tcp4`, `tcp6`.
    """

    def __init__(self, vnet_octets: int, kinds: Set[str] = frozenset({"tcp4", "tcp6"})) -> None:
        self._vnet_octets = vnet_octets
        self._layouts = [layout for layout, kind in ((_V4, "tcp4"), (_V6, "tcp6")) if kind in kinds]
        self._plain = bytes(vnet_octets)
        self._masks: dict[tuple[int, int], int] = {}

    def coalesce(self, frames: list[bytes]) -> list[tuple[bytes, int]]:
        """The writes for a batch, each with its number of frames. The order within every flow is kept."""
        runs: dict[bytes, _Run] = {}
        order: list[bytes | _Run] = []
        index = 0
        while index < len(frames):
            run = self._offer(frames[index], runs, order)
            index += 1
            if run is not None:
                index = _extend(run, frames, index)
        plain = self._plain
        return [(plain + item, 1) if isinstance(item, bytes) else self._written(item) for item in order]

    def _offer(self, frame: bytes, runs: dict[bytes, _Run], order: list[bytes | _Run]) -> _Run | None:
        """Put a frame where it belongs; returns the run that the next frame may continue."""
        layout = _layout_of(frame)
        if layout is None or layout not in self._layouts:
            if runs:
                _interrupt(frame, runs)
            order.append(frame)
            return None
        length, identity, header_sum, number, offset, flags = _fields(layout, frame)
        key = frame[layout.key]
        body = layout.tcp + (offset >> 2)
        if (
            length != len(frame) - layout.counted_from
            or len(frame) <= body
            or offset < 0x50
            or offset & 0x0F
            or flags & _OTHER_FLAGS != _ACK
            or header_sum == 0xFFFF
        ):
            runs.pop(key, None)
            order.append(frame)
            return None
        masked = int.from_bytes(frame[:body], "little") & self._mask(body, layout)
        # As identification and length grow, the header checksum shrinks: their sum stays the same.
        total = (header_sum + identity + length) % 0xFFFF if layout is _V4 else 0
        run = runs.get(key)
        if (
            run is not None
            and run.masked == masked
            and run.expected == number
            and run.identity == identity
            and run.sum == total
            and _takes(run, frame)
        ):
            run.frames.append(frame)
            run.octets += len(frame) - body
            run.room -= 1
            run.psh = bool(flags & _PSH)
            if run.psh or len(frame) - body < run.size:
                del runs[key]
                return None
            run.follow(frame, number, identity if layout is _V4 else -1)
            return run
        if flags & _PSH:
            runs.pop(key, None)
            order.append(frame)
            return None
        run = _Run(frame, layout, body, masked, number)
        run.sum = total
        run.follow(frame, number, identity if layout is _V4 else -1)
        runs[key] = run
        order.append(run)
        return run

    def _mask(self, body: int, layout: _Layout) -> int:
        """A mask over the headers as one little-endian number: 0 where segments of one run may differ."""
        mask = self._masks.get((body, layout.tcp))
        if mask is None:
            octets = bytearray(b"\xff" * body)
            octets[layout.length_at : layout.length_at + 2] = bytes(2)
            if layout is _V4:
                octets[18:20] = bytes(2)
                octets[24:26] = bytes(2)
            octets[layout.tcp + 4 : layout.tcp + 8] = bytes(4)
            octets[layout.tcp + 13] &= ~_PSH
            octets[layout.tcp + 16 : layout.tcp + 18] = bytes(2)
            mask = self._masks[body, layout.tcp] = int.from_bytes(octets, "little")
        return mask

    def _written(self, run: _Run) -> tuple[bytes, int]:
        """The write for a run: a super-frame, or the frame itself if it stayed alone."""
        frames = run.frames
        if len(frames) == 1:
            return self._plain + frames[0], 1
        layout, body = run.layout, run.body
        tcp = layout.tcp
        head = bytearray(frames[0][:body])
        head[layout.length_at : layout.length_at + 2] = run.octets.to_bytes(2, "big")
        if layout is _V4:
            head[24:26] = b"\0\0"
            head[24:26] = checksum_octets(word_sum(head[14:34]))
        if run.psh:
            head[tcp + 13] |= _PSH
        # The pseudo-header's sum, as NEEDS_CSUM has it in the field.
        tcp_octets = run.octets + layout.counted_from - tcp
        ports = tcp if layout is _V4 else 54
        pseudo = word_sum(head[layout.addresses : ports]) + _TCP_WORD + swapped(tcp_octets)
        head[tcp + 16 : tcp + 18] = partial_octets(pseudo)
        header = VnetHeader(True, layout.gso_type, False, body, run.size, tcp, 16)
        parts: list[bytes | bytearray] = [serialize_vnet(header, self._vnet_octets), head]
        parts += [frame[body:] for frame in frames]
        return b"".join(parts), len(frames)


def _layout_of(frame: bytes) -> _Layout | None:
    """The layout of a TCP segment that may be joined as far as its IP header says; else None."""
    start = frame[12:15]
    if start == _IPV4_START:
        if len(frame) > 54 and frame[23] == _TCP and not (frame[20] & _MORE_OR_OFFSET or frame[21]):
            return _V4
    elif start[:2] == _IPV6 and len(frame) > 74 and frame[20] == _TCP:
        return _V6
    return None


def _fields(layout: _Layout, frame: bytes) -> tuple[int, int, int, int, int, int]:
    """See `_Layout.fields`."""
    if layout is _V4:
        length, identity, header_sum, number, offset, flags = layout.fields.unpack_from(frame)
        return length, identity, header_sum, number, offset, flags
    length, number, offset, flags = layout.fields.unpack_from(frame)
    return length, 0, 0, number, offset, flags


def _extend(run: _Run, frames: list[bytes], index: int) -> int:
    """Take the full segments that follow from `index` on; returns the index of the first frame not taken.

    Bulk traffic spends its time here: one comparison covers the whole header of the next segment, and its
    checksum is `_is_good`, written out.
    """
    layout, body = run.layout, run.body
    length, size = body + run.size, run.size
    head, words = layout.head, layout.words
    options = slice(layout.tcp + 18, body)
    field = slice(layout.tcp + 16, layout.tcp + 18)
    next_head, step, tail = run.next_head, run.step, run.tail
    (shift1, mask1), (shift2, mask2), (shift3, mask3), (shift4, mask4), pseudo = _folds(length, layout)
    from_bytes = int.from_bytes
    taken = run.frames
    start = index
    most = min(len(frames), index + run.room)
    while index < most:
        frame = frames[index]
        if len(frame) != length or from_bytes(frame[head], "big") != next_head or frame[options] != tail:
            break
        number = from_bytes(frame[words], "little")
        number = (number >> shift1) + (number & mask1)
        number = (number >> shift2) + (number & mask2)
        number = (number >> shift3) + (number & mask3)
        number = (number >> shift4) + (number & mask4)
        if (number + pseudo) % 0xFFFF or frame[field] == _NOT_CANONICAL:
            break
        if len(taken) == 1 and not _is_first_good(run):
            break
        taken.append(frame)
        next_head += step
        index += 1
    added = index - start
    if added:
        run.next_head = next_head
        run.room -= added
        run.octets += added * size
        run.expected = (run.expected + added * size) & 0xFFFFFFFF
        if layout is _V4:
            run.identity = (run.identity + added) & 0xFFFF
    return index


def _takes(run: _Run, frame: bytes) -> bool:
    """Whether there is room, and the checksums of this frame (and of the first) are good."""
    return (
        len(frame) <= run.body + run.size
        and run.room > 0
        and _is_good(frame, run.layout)
        and (len(run.frames) > 1 or _is_first_good(run))
    )


def _interrupt(frame: bytes, runs: dict[bytes, _Run]) -> None:
    """End the runs that a frame which is not joined may belong to: nothing may overtake it."""
    ethertype = frame[12:14]
    if ethertype == _IPV4:
        if frame[14:15] != b"\x45" or len(frame) < 38 or frame[20] & _MORE_OR_OFFSET or frame[21]:
            runs.clear()  # a fragment, or options: it may belong to any flow
        else:
            runs.pop(frame[_V4.key], None)
    elif ethertype == _IPV6:
        if len(frame) < 58 or frame[20] not in _PLAIN_IPV6:
            runs.clear()
        else:
            runs.pop(frame[_V6.key], None)


def _is_first_good(run: _Run) -> bool:
    """Checked only when a second frame comes: most frames of interactive traffic stay alone."""
    frame = run.frames[0]
    if run.layout is _V4 and word_sum(frame[14:34]):
        return False
    return _is_good(frame, run.layout)


def _is_good(frame: bytes, layout: _Layout) -> bool:
    """The TCP checksum is right, and written as the kernel would write it (0, not FFFF)."""
    total = word_sum(frame[layout.words]) + _pseudo(len(frame) - layout.tcp)
    return total % 0xFFFF == 0 and frame[layout.tcp + 16 : layout.tcp + 18] != _NOT_CANONICAL


def _pseudo(tcp_octets: int) -> int:
    """What the pseudo-header adds to a sum that begins with the addresses."""
    return _TCP_WORD + swapped(tcp_octets)


_Folds = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int], int]


def _folds(length: int, layout: _Layout) -> _Folds:
    """For frames of this length: shifts and masks that fold its words four times (see `checksum.word_sum`).

    The last figure is `_pseudo`. Remembers LENGTHS_REMEMBERED: peers choose the lengths of frames.
    """
    folds = _FOLDS.get((length, layout.tcp))
    if folds is None:
        octets = length - layout.addresses
        steps = []
        for _ in range(4):
            octets = (octets + 3) // 4 * 2
            steps.append((octets * 8, (1 << octets * 8) - 1))
            octets += 2  # the carry
        folds = (steps[0], steps[1], steps[2], steps[3], _pseudo(length - layout.tcp))
        if len(_FOLDS) >= LENGTHS_REMEMBERED:
            _FOLDS.clear()
        _FOLDS[length, layout.tcp] = folds
    return folds


_FOLDS: Final[dict[tuple[int, int], _Folds]] = {}
