"""Pings and OCC messages."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets import occ
from bridged.protocol.packets.framing import WRAPPERS, Framing
from bridged.protocol.packets.occ import OccMessage, OccType, load_of, mtu_reply
from bridged.protocol.packets.packet_size import PacketShape


@pytest.mark.parametrize("kind", OccType)
def test_every_type_reads_back(kind: OccType) -> None:
    message = OccMessage(kind, b"body")
    assert occ.parse_occ(occ.serialize_occ(message)) == message


@pytest.mark.parametrize(
    "payload", [b"", occ.PING, occ.OCC_MAGIC, occ.OCC_MAGIC + b"\x07", occ.OCC_MAGIC[:-1] + b"xx"]
)
def test_other_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        occ.parse_occ(payload)
    assert error.value.code == "bad_length"


def test_a_reply_ends_with_nul() -> None:
    assert occ.occ_reply("V4").body == b"V4\0"


def test_an_answer_to_an_mtu_request_has_what_was_received_first() -> None:
    assert mtu_reply(1556, 1542) == OccMessage(OccType.MTU_REPLY, bytes((6, 20, 6, 6)))
    assert mtu_reply(70_000, 0).body == b"\xff\xff\0\0"


@pytest.mark.parametrize("framing", get_args(Framing))
def test_framing_and_fragments_count_in_the_size_of_a_packet(framing: Framing) -> None:
    payload = occ.OCC_EXIT.ljust(1400, b"\0")
    framed = WRAPPERS[framing](payload) if framing in WRAPPERS else payload
    shape = PacketShape(Cipher.AES_256_GCM, "SHA1", has_peer_id=True, framing=framing)
    assert shape.octets(1400) == 24 + len(framed)
    assert replace(shape, fragment=1490).octets(1400) == 28 + len(framed)
    assert replace(shape, fragment=1300).octets(1400) == 1300


def test_the_exit_notice() -> None:
    assert occ.OCC_EXIT == occ.OCC_MAGIC + b"\6"


def test_a_request_for_load_is_answered_with_a_packet_of_that_size_within_limits() -> None:
    def filling(body: bytes) -> int:
        load = load_of(OccMessage(OccType.MTU_LOAD_REQUEST, body), 1518)
        assert load is not None
        assert load.type is OccType.MTU_LOAD
        return len(load.body)

    assert filling(b"\x01\x40") == 320 - 17 - 24
    assert filling(b"\x01\x41" + bytes(1000)) == 321 - 17 - 24
    assert filling(b"\0\0") == filling(b"\0\x28") == 0
    assert filling(b"\xff\xff") == 1518 - 17
    assert load_of(OccMessage(OccType.MTU_LOAD_REQUEST, b"\1"), 1500) is None
    assert load_of(OccMessage(OccType.MTU_LOAD, b"\1\1"), 1500) is None
