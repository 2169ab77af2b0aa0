"""What the first bytes of a TCP connection say: OpenVPN, or something else.

Source: docs/protocol/control.md#1-1, #1-4; OpenVPN's `--port-share` decides by the same, length and opcode of
the first packet.
Pure.
"""

from __future__ import annotations

from typing import Final, Literal

from bridged.protocol.packets.packet import Opcode

FIRST_OCTETS: Final = 3
"""Bytes that decide: a length and an opcode."""
PREFIX_OCTETS: Final = 2
MOST_OCTETS: Final = PREFIX_OCTETS + 1279
"""Bytes of the longest first packet, its length included."""

_LENGTHS: Final[dict[int, range]] = {
    Opcode.HARD_RESET_CLIENT_V2: range(14, 256),
    # It carries a wrapped client key: 290 bytes and its metadata.
    Opcode.HARD_RESET_CLIENT_V3: range(336, MOST_OCTETS - PREFIX_OCTETS + 1),
}
_LEAST, _MOST = 14, MOST_OCTETS - PREFIX_OCTETS

FirstVerdict = Literal["more", "packet", "other"]


def judge(octets: bytes) -> FirstVerdict:
    """`more`: it may become OpenVPN's first packet. `packet`: that one is complete. `other`: it is none."""
    if len(octets) < PREFIX_OCTETS:
        return "other" if octets and octets[0] > _MOST >> 8 else "more"
    length = int.from_bytes(octets[:PREFIX_OCTETS], "big")
    if not _LEAST <= length <= _MOST:
        return "other"
    if len(octets) < FIRST_OCTETS:
        return "more"
    opcode, key_id = divmod(octets[PREFIX_OCTETS], 8)
    if key_id or length not in _LENGTHS.get(opcode, ()):
        return "other"
    return "packet" if len(octets) >= PREFIX_OCTETS + length else "more"
