"""Fuzz target: AEAD data packets, from arbitrary bytes and sealed with our key."""

from __future__ import annotations

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets import data_packet

IV = b"implicit"
AEADS = tuple(data_packet.make_aead(cipher, bytes(cipher.key_length)) for cipher in Cipher)


def one_input(data: bytes) -> None:
    for aead in AEADS:
        try:
            data_packet.open(aead, IV, data)
        except RemoteProtocolError as error:
            assert error.code in {"short_packet", "bad_opcode", "tag_mismatch"}
        else:
            raise AssertionError("forged a packet")
    if len(data) < 9:
        return
    peer_id = None if data[0] & 1 else int.from_bytes(data[1:4], "big")
    header = data_packet.serialize_data_header(data[0] >> 5, peer_id)
    packet_id = int.from_bytes(data[4:8], "big") or 1
    for aead in AEADS:
        opened = data_packet.open(aead, IV, data_packet.seal(aead, IV, header, packet_id, data[8:]))
        assert (opened.packet_id, opened.payload) == (packet_id, data[8:])
        assert (opened.header.key_id, opened.header.peer_id) == (data[0] >> 5, peer_id)
