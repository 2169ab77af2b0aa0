"""AEAD data packets (known answers: tests/vectors)."""

from __future__ import annotations

import pytest

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets import data_packet

AEAD = data_packet.make_aead(Cipher.AES_256_GCM, bytes(32))
IV = b"implicit"
V2 = data_packet.serialize_data_header(1, 0x123456)


def test_headers_have_one_and_four_octets() -> None:
    assert data_packet.serialize_data_header(2, None) == b"\x32"
    assert V2 == b"\x49\x12\x34\x56"
    assert (data_packet.OVERHEAD_V1, data_packet.OVERHEAD_V2) == (21, 24)


@pytest.mark.parametrize("peer_id", [-1, 0x1000000])
def test_a_peer_id_beyond_24_bits_is_our_bug(peer_id: int) -> None:
    with pytest.raises(LocalProtocolError):
        data_packet.serialize_data_header(0, peer_id)


@pytest.mark.parametrize("packet_id", [0, 1 << 32])
def test_packet_ids_that_may_not_be_sent_are_refused(packet_id: int) -> None:
    with pytest.raises(LocalProtocolError):
        data_packet.seal(AEAD, IV, V2, packet_id, b"x")


def test_an_empty_payload_is_refused_both_ways() -> None:
    with pytest.raises(LocalProtocolError):
        data_packet.seal(AEAD, IV, V2, 1, b"")
    with pytest.raises(RemoteProtocolError) as error:
        data_packet.open(AEAD, IV, V2 + bytes(20))
    assert error.value.code == "short_packet"


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"", "short_packet"),
        (b"\x48\0\0", "short_packet"),
        (b"\x20" + bytes(40), "bad_opcode"),
        (b"\xf8" + bytes(40), "bad_opcode"),
        (b"\x48" + bytes(40), "tag_mismatch"),
        (b"\x30" + bytes(40), "tag_mismatch"),
    ],
)
def test_packets_that_are_none_are_refused(packet: bytes, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        data_packet.open(AEAD, IV, packet)
    assert error.value.code == code


def test_the_tag_stands_in_front_of_the_ciphertext() -> None:
    packet = data_packet.seal(AEAD, IV, V2, 7, b"payload")
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    library = AESGCM(bytes(32)).encrypt(b"\0\0\0\7" + IV, b"payload", V2 + b"\0\0\0\7")
    assert packet == V2 + b"\0\0\0\7" + library[-16:] + library[:-16]


def test_a_key_of_another_length_is_our_bug() -> None:
    with pytest.raises(LocalProtocolError):
        data_packet.make_aead(Cipher.AES_128_GCM, bytes(32))


def test_another_implicit_iv_does_not_open() -> None:
    packet = data_packet.seal(AEAD, IV, V2, 7, b"payload")
    with pytest.raises(RemoteProtocolError) as error:
        data_packet.open(AEAD, b"IMPLICIT", packet)
    assert error.value.code == "tag_mismatch"
