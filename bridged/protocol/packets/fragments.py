"""OpenVPN's `fragment`: payloads that are too large for one packet are cut, and joined at the other end.

Source: docs/protocol/data.md#4-1.
Pure: bytes in, bytes out; callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

HEADER_OCTETS: Final = 4
FRAGMENT_LEAST: Final = 256
"""The least size of a packet that payloads are cut to."""
PARTS_MOST: Final = 32
WAITING_MOST: Final = 25
"""How many payloads of one peer may wait for parts."""
WAITING_OCTETS: Final = 128 * 1024
"""How many bytes they may take together."""
WAITING_SECONDS: Final = 10.0
"""For how long."""
PAYLOAD_MOST: Final = 65_535 + 64
"""The largest frame that a TAP can carry, with tags and framing."""

WHOLE: Final = bytes(HEADER_OCTETS)
_NOT_LAST: Final = 1
_LAST: Final = 2


class FragmentError(Exception):
    """A header that no sender writes, or a part that fits no payload."""


def part_octets(length: int, most: int) -> int:
    """How many bytes of a payload each part carries but the last one; `most` is the largest part.

    OpenVPN makes the parts about equal.
    """
    most &= ~3
    whole, rest = divmod(length, most)
    if whole and 0 < rest < most * 3 // 4:
        return min(most, (most - (most - rest) // (whole + 1) + 3) & ~3)
    return most


def cut(payload: bytes, most: int, sequence: int) -> list[bytes]:
    """The payload as packets carry it, each with its header; `most` bytes of payload at most in each.

    Only where more than PARTS_MOST parts were needed they are larger. `sequence` (0..255) numbers payloads
    in parts.
    """
    if len(payload) <= most:
        return [WHOLE + payload]
    size = max(part_octets(len(payload), most), -(-len(payload) // PARTS_MOST) + 3 & ~3)
    count = -(-len(payload) // size)
    packets = []
    for number in range(count):
        is_last = number == count - 1
        header = (_LAST | size // 4 << 15) if is_last else _NOT_LAST
        header |= sequence << 2 | number << 10
        packets.append(header.to_bytes(HEADER_OCTETS, "big") + payload[number * size : (number + 1) * size])
    return packets


@dataclass(slots=True)
class _Waiting:
    """A payload of which parts are missing."""

    began: float
    size: int
    octets: bytearray = field(default_factory=bytearray)
    seen: int = 0
    """A bit for each part that is there."""
    last: int | None = None
    """Number of the last part, once it is there."""

    @property
    def is_complete(self) -> bool:
        return self.last is not None and self.seen == (1 << self.last + 1) - 1


class Reassembly:
    """Joins the parts of one peer's payloads, in any order; bounded in payloads, bytes and time.

    `lost`: payloads that were given up.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: dict[int, _Waiting] = {}
        self._octets = 0

    def take(self, packet: bytes, now: float) -> bytes | None:
        """The payload that is complete with this packet; None: parts are missing.

        Raises:
            FragmentError: the packet is of no use.
        """
        header = int.from_bytes(packet[:HEADER_OCTETS], "big")
        part = packet[HEADER_OCTETS:]
        if header == 0 and part:
            return part
        kind, sequence, number, quarters = header & 3, header >> 2 & 255, header >> 10 & 31, header >> 15
        size = len(part) if kind == _NOT_LAST else 4 * (quarters & 0x3FFF)
        if kind not in (_NOT_LAST, _LAST) or not part or not size:
            raise FragmentError("no header of a part")
        if len(part) > size or size * number + len(part) > PAYLOAD_MOST:
            raise FragmentError("a part that is too long")
        waiting = self._find(sequence, size, now)
        if waiting.seen >> number & 1:
            raise FragmentError("a part that was there before")
        self._grow(sequence, waiting, size * number + len(part))
        waiting.octets[size * number : size * number + len(part)] = part
        waiting.seen |= 1 << number
        if kind == _LAST:
            waiting.last = number
        if not waiting.is_complete:
            return None
        del self._waiting[sequence]
        self._octets -= len(waiting.octets)
        return bytes(waiting.octets)

    def _find(self, sequence: int, size: int, now: float) -> _Waiting:
        """The payload of this number; a new one where the parts have another size, or are too old."""
        for other in [one for one, waiting in self._waiting.items() if now - waiting.began > WAITING_SECONDS]:
            self._give_up(other)
        waiting = self._waiting.get(sequence)
        if waiting is not None and waiting.size != size:
            self._give_up(sequence)
            waiting = None
        if waiting is None:
            if len(self._waiting) >= WAITING_MOST:
                self._give_up(next(iter(self._waiting)))
            waiting = self._waiting[sequence] = _Waiting(now, size)
        return waiting

    def _grow(self, sequence: int, waiting: _Waiting, length: int) -> None:
        """Make room for so many bytes of a payload; older ones give way."""
        more = max(0, length - len(waiting.octets))
        while self._octets + more > WAITING_OCTETS:
            self._give_up(next(other for other in self._waiting if other != sequence))
        waiting.octets.extend(bytes(more))
        self._octets += more

    def _give_up(self, sequence: int) -> None:
        self._octets -= len(self._waiting.pop(sequence).octets)
        self.lost += 1
