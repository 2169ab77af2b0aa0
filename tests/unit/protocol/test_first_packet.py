"""What the first bytes of a TCP connection are taken for."""

from __future__ import annotations

import pytest

from bridged.protocol.strangers.first_packet import MOST_OCTETS, judge

RESET, RESET_V3 = 7 << 3, 10 << 3


def packet(length: int, opcode: int = RESET) -> bytes:
    return length.to_bytes(2, "big") + bytes([opcode]) + bytes(length - 1)


@pytest.mark.parametrize(("length", "opcode"), [(14, RESET), (54, RESET), (255, RESET), (336, RESET_V3)])
def test_a_hard_reset_is_recognised_once_it_is_complete(length: int, opcode: int) -> None:
    octets = packet(length, opcode)
    assert [judge(octets[:end]) for end in range(len(octets))] == ["more"] * len(octets)
    assert judge(octets) == judge(octets + b"behind it") == "packet"


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"SSH-2.0-OpenSSH",
        packet(13),
        packet(256),
        packet(335, RESET_V3),
        packet(MOST_OCTETS - 1, RESET_V3),
        packet(54, RESET | 1),
        packet(54, 4 << 3),
        bytes(2),
    ],
)
def test_anything_else_is_told_apart_by_its_first_bytes(octets: bytes) -> None:
    assert judge(octets[:3]) == judge(octets) == "other"
