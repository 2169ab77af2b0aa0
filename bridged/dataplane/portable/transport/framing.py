"""Packets in a TCP stream: each stands behind its length, two bytes.

Source: docs/protocol/data.md#2-1. No I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

PREFIX_OCTETS: Final = 2
LONGEST_PACKET: Final = 65_535
_PREFIX: Final = struct.Struct("!H")


class BadFraming(Exception):
    """A length of 0: whatever follows cannot be told apart. Or it is more than may be sent."""


class Deframer:
    """Finds the packets of one stream. Holds less than one packet between two calls.

    `packet_octets`: bytes of the longest packet that is taken.
    """

    __slots__ = ("_rest", "packet_octets")

    def __init__(self, rest: bytes = b"", packet_octets: int = 0xFFFF) -> None:
        self._rest = rest
        self.packet_octets = packet_octets

    @property
    def waiting(self) -> bytes:
        """What belongs to no whole packet yet, or has not been taken."""
        return self._rest

    def take(self, octets: bytes) -> list[bytes]:
        """The packets that are complete now, in order.

        Raises:
            BadFraming: a length is 0 or too large; the packets before it are lost.
        """
        data = self._rest + octets if self._rest else octets
        packets = []
        at, end = 0, len(data)
        while end - at >= PREFIX_OCTETS:
            (length,) = _PREFIX.unpack_from(data, at)
            if not 0 < length <= self.packet_octets:
                raise BadFraming
            begin = at + PREFIX_OCTETS
            if end - begin < length:
                break
            at = begin + length
            packets.append(data[begin:at])
        self._rest = data[at:]
        return packets


def framed(packets: Iterable[bytes]) -> bytes:
    """Packets as they stand in a stream.

    Raises:
        struct.error: one is longer than LONGEST_PACKET.
    """
    return b"".join(part for packet in packets for part in (_PREFIX.pack(len(packet)), packet))
