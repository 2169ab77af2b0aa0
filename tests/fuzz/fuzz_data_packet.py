"""Fuzz target: data packets of every format, from arbitrary bytes and sealed with our key."""

from __future__ import annotations

from collections.abc import Callable

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.digest import DIGESTS
from bridged.protocol.keys.epoch_keys import EpochKey
from bridged.protocol.packets import data_packet
from bridged.protocol.packets.cbc_packet import BLOCK, CbcHmac, open_cbc, seal_cbc
from bridged.protocol.packets.epoch_packet import open_epoch
from bridged.protocol.packets.static_packet import open_static, seal_static
from tests.lab.epoch_sealing import seal_epoch

IV = b"implicit"
CBC_IV = bytes(BLOCK)
AEADS = tuple(
    data_packet.make_aead(cipher, bytes(cipher.key_length)) for cipher in Cipher if not cipher.is_cbc
)
EPOCHS = tuple(EpochKey(3, bytes(32), cipher) for cipher in Cipher if not cipher.is_cbc)
HMACS = tuple(
    CbcHmac(bytes(cipher.key_length), digest, bytes(length))
    for cipher, (digest, (_, length)) in zip(
        (cipher for cipher in Cipher if cipher.is_cbc), sorted(DIGESTS.items()), strict=False
    )
)


def refuses(opening: Callable[[], object]) -> None:
    try:
        opening()
    except RemoteProtocolError as error:
        assert error.code in {"short_packet", "bad_opcode", "tag_mismatch"}
    else:
        raise AssertionError("forged a packet")


def one_input(data: bytes) -> None:
    for aead in AEADS:
        refuses(lambda aead=aead: data_packet.open(aead, IV, data))
    for key in EPOCHS:
        aead = data_packet.make_aead(key.cipher, key.cipher_key)
        refuses(lambda aead=aead, key=key: open_epoch(aead, key.iv, data))
    for hmac in HMACS:
        refuses(lambda hmac=hmac: open_cbc(hmac, data))
        refuses(lambda hmac=hmac: open_static(hmac, data))
    if len(data) >= 9:
        sealed_and_opened(data[0], data[1:4], int.from_bytes(data[4:8], "big") or 1, data[8:])


def sealed_and_opened(first: int, peer: bytes, number: int, payload: bytes) -> None:
    key_id, peer_id = first >> 5, None if first & 1 else int.from_bytes(peer, "big")
    header = data_packet.serialize_data_header(key_id, peer_id)
    expected = data_packet.parse_data_header(header)
    assert (expected.key_id, expected.peer_id) == (key_id, peer_id)
    for aead in AEADS:
        opened = data_packet.open(aead, IV, data_packet.seal(aead, IV, header, number, payload))
        assert opened == data_packet.OpenedData(expected, number, payload)
    for key in EPOCHS:
        aead = data_packet.make_aead(key.cipher, key.cipher_key)
        found = open_epoch(aead, key.iv, seal_epoch(aead, key.iv, header, key.epoch, number, payload))
        assert (found.header, found.epoch, found.counter, found.payload) == (expected, 3, number, payload)
    for hmac in HMACS:
        opened = open_cbc(hmac, seal_cbc(hmac, CBC_IV, header, number, payload))
        assert opened == data_packet.OpenedData(expected, number, payload)
        bare = open_static(hmac, seal_static(hmac, CBC_IV, number, first, payload))
        assert (bare.packet_id, bare.packet_time, bare.payload) == (number, first, payload)
