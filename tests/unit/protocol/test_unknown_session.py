"""The notice that a server knows no session for a data packet."""

from __future__ import annotations

import pytest

from bridged.protocol.packets.packet import Opcode, parse_first_octet
from bridged.protocol.packets.unknown_session import KEY_IDS, NOTICE_OCTETS, is_notice, serialize_notice


@pytest.mark.parametrize("key_id", range(KEY_IDS))
def test_a_notice_looks_like_data_of_a_key_that_the_client_cannot_have(key_id: int) -> None:
    notice = serialize_notice(key_id)
    opcode, unused = parse_first_octet(notice[0])
    assert (len(notice), opcode, is_notice(notice)) == (NOTICE_OCTETS, Opcode.DATA_V2, True)
    nearby = {(key_id + step) % KEY_IDS for step in (-2, -1, 0, 1, 2)}
    assert unused not in nearby, "lame duck, retiring and next keys are next to the one in use"


def test_a_notice_is_smaller_than_any_packet_that_draws_one() -> None:
    assert NOTICE_OCTETS < 4 + 4 + 16 + 1


@pytest.mark.parametrize("packet", [b"", bytes(20), serialize_notice(0) + b"x", serialize_notice(0)[:-1]])
def test_anything_else_is_no_notice(packet: bytes) -> None:
    assert not is_notice(packet)
