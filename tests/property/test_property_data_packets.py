"""Data packets of every format: round trips both ways; whatever else comes is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.digest import DIGESTS
from bridged.protocol.keys.epoch_keys import EpochKey
from bridged.protocol.keys.key_derivation import DataKey, slice_keys, static_data_key
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets import data_packet
from bridged.protocol.packets.cbc_packet import CbcHmac, open_cbc, seal_cbc
from bridged.protocol.packets.data_packet import OpenedData, parse_data_header, serialize_data_header
from bridged.protocol.packets.epoch_packet import MAX_COUNTER, open_epoch
from bridged.protocol.packets.packet_size import PacketShape
from bridged.protocol.packets.static_packet import OpenedStaticData, marked_iv, open_static, seal_static
from bridged.protocol.role import Role
from bridged.units import KeyId
from tests.lab.epoch_sealing import seal_epoch

AEAD = [cipher for cipher in Cipher if not cipher.is_cbc]
CBC = [cipher for cipher in Cipher if cipher.is_cbc]

materials = st.binary(min_size=256, max_size=256)
key_ids = st.integers(0, 7).map(KeyId)
peer_ids = st.none() | st.integers(0, 0xFFFFFF)
packet_ids = st.integers(1, 0xFFFFFFFF)
payloads = st.binary(min_size=1, max_size=1600)
ivs = st.binary(min_size=16, max_size=16)


def sealer(key: DataKey) -> CbcHmac:
    assert key.digest is not None
    return CbcHmac(key.send_key, key.digest, key.send_hmac)


def opener(key: DataKey) -> CbcHmac:
    assert key.digest is not None
    return CbcHmac(key.receive_key, key.digest, key.receive_hmac)


@given(st.sampled_from(AEAD), materials, key_ids, peer_ids, packet_ids, payloads)
def test_packets_with_aead_ciphers_cross_both_ways(
    cipher: Cipher, material: bytes, key_id: KeyId, peer_id: int | None, packet_id: int, payload: bytes
) -> None:
    header = serialize_data_header(key_id, peer_id)
    for role in Role:
        ours = slice_keys(material, role, cipher, key_id)
        theirs = slice_keys(material, role.peer, cipher, key_id)
        sealing = data_packet.make_aead(cipher, ours.send_key)
        opening = data_packet.make_aead(cipher, theirs.receive_key)
        packet = data_packet.seal(sealing, bytes(ours.send_iv), header, packet_id, payload)
        assert len(packet) == PacketShape(cipher, "SHA1", peer_id is not None).octets(len(payload))
        opened = data_packet.open(opening, bytes(theirs.receive_iv), packet)
        assert (opened.packet_id, opened.payload) == (packet_id, payload)
        assert (opened.header.key_id, opened.header.peer_id) == (key_id, peer_id)


@given(st.sampled_from(CBC), st.sampled_from(sorted(DIGESTS)), materials, peer_ids, packet_ids, ivs, payloads)
def test_packets_with_cbc_ciphers_cross_both_ways(
    cipher: Cipher,
    digest: str,
    material: bytes,
    peer_id: int | None,
    packet_id: int,
    iv: bytes,
    payload: bytes,
) -> None:
    header = serialize_data_header(3, peer_id)
    for role in Role:
        ours = slice_keys(material, role, cipher, KeyId(3), digest=digest)
        theirs = slice_keys(material, role.peer, cipher, KeyId(3), digest=digest)
        packet = seal_cbc(sealer(ours), iv, header, packet_id, payload)
        assert len(packet) == PacketShape(cipher, digest, peer_id is not None).octets(len(payload))
        assert open_cbc(opener(theirs), packet) == OpenedData(parse_data_header(header), packet_id, payload)


@given(
    st.sampled_from(AEAD),
    materials,
    key_ids,
    peer_ids,
    st.integers(1, 9),
    st.integers(1, MAX_COUNTER),
    payloads,
)
def test_packets_of_epochs_cross_both_ways(
    cipher: Cipher,
    material: bytes,
    key_id: KeyId,
    peer_id: int | None,
    epoch: int,
    counter: int,
    payload: bytes,
) -> None:
    header = serialize_data_header(key_id, peer_id)
    for role in Role:
        ours = slice_keys(material, role, cipher, key_id, is_epoch=True)
        theirs = slice_keys(material, role.peer, cipher, key_id, is_epoch=True)
        sending, receiving = (
            EpochKey(1, bytes(ours.send_key), cipher),
            EpochKey(1, bytes(theirs.receive_key), cipher),
        )
        for _ in range(1, epoch):
            sending, receiving = sending.next(), receiving.next()
        sealing = data_packet.make_aead(cipher, sending.cipher_key)
        opening = data_packet.make_aead(cipher, receiving.cipher_key)
        packet = seal_epoch(sealing, sending.iv, header, epoch, counter, payload)
        shape = PacketShape(cipher, "SHA1", peer_id is not None, is_epoch=True)
        assert len(packet) == shape.octets(len(payload))
        opened = open_epoch(opening, receiving.iv, packet)
        assert (opened.epoch, opened.counter, opened.payload) == (epoch, counter, payload)
        assert (opened.header.key_id, opened.header.peer_id) == (key_id, peer_id)


@given(
    st.sampled_from(CBC),
    st.sampled_from(sorted(DIGESTS)),
    materials,
    st.sampled_from([(None, None), (0, 1), (1, 0)]),
    packet_ids,
    ivs,
    payloads,
)
def test_packets_under_static_keys_cross_both_ways(
    cipher: Cipher,
    digest: str,
    material: bytes,
    directions: tuple[int | None, int | None],
    packet_id: int,
    iv: bytes,
    payload: bytes,
) -> None:
    ours, theirs = (
        static_data_key(StaticKey(material), direction, cipher, digest, 1_700_000_000)
        for direction in directions
    )
    packet = seal_static(sealer(ours), iv, packet_id, 1_700_000_000, payload)
    shape = PacketShape(cipher, digest, has_peer_id=False, is_static=True)
    assert len(packet) == shape.octets(len(payload))
    assert open_static(opener(theirs), packet) == OpenedStaticData(packet_id, 1_700_000_000, payload, iv)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), packet_ids, payloads)
def test_an_end_knows_its_own_packets_under_a_static_key_and_no_others(
    origin: bytes, other: bytes, packet_id: int, payload: bytes
) -> None:
    key = static_data_key(StaticKey(bytes(256)), None, Cipher.AES_256_CBC, "SHA256", 7, 0, origin)
    assert bytes(key.static_origin) == origin
    iv = marked_iv(origin, packet_id, 7)
    opened = open_static(opener(key), seal_static(sealer(key), iv, packet_id, 7, payload))
    assert opened.is_from(origin)
    assert opened.is_from(other) == (origin == other)
    assert not opened.is_from(b"")
    directed = static_data_key(StaticKey(bytes(256)), 0, Cipher.AES_256_CBC, "SHA256", 7, 0, origin)
    assert not directed.static_origin
    key.zeroise()
    assert not any(key.static_origin)


def _openings() -> dict[str, Callable[[bytes], object]]:
    aead = data_packet.make_aead(Cipher.AES_256_GCM, bytes(32))
    hmac = CbcHmac(bytes(32), "SHA256", bytes(32))
    return {
        "aead": lambda data: data_packet.open(aead, bytes(8), data),
        "cbc": lambda data: open_cbc(hmac, data),
        "epoch": lambda data: open_epoch(aead, bytes(12), data),
        "static": lambda data: open_static(hmac, data),
    }


OPENINGS = _openings()


@pytest.mark.parametrize("opening", OPENINGS)
@given(data=st.binary(max_size=200))
def test_arbitrary_packets_are_refused(opening: str, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        OPENINGS[opening](data)
