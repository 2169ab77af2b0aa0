"""Key slots against the reference layout, and how far a key may be used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridged.dataplane.portable.tables import key_use
from bridged.dataplane.portable.tables.key_formats import make_slot
from bridged.dataplane.portable.tables.key_use import KeyUse
from bridged.dataplane.portable.tables.keys import NEVER, KeySlot
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.digest import digest_length
from bridged.protocol.keys.epoch_keys import EpochKey
from bridged.protocol.keys.key_derivation import DataKey, slice_keys, static_data_key
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets import data_packet
from bridged.protocol.packets.cbc_packet import BLOCK, CbcHmac, seal_cbc
from bridged.protocol.packets.epoch_packet import seal_epoch
from bridged.protocol.packets.static_packet import seal_static
from bridged.protocol.role import Role
from bridged.units import KeyId, WirePeerId

MATERIAL = bytes(range(256))


def slot(role: Role = Role.CLIENT, cipher: Cipher = Cipher.AES_256_GCM, window: int = 64) -> KeySlot:
    made = KeySlot(slice_keys(MATERIAL, role, cipher, KeyId(3)), window, KeyUse(is_aes_gcm=cipher.is_aes_gcm))
    made.address_to(WirePeerId(0x010203))
    return made


def fail(reason: str) -> None:
    raise AssertionError(reason)


def sealed_by_the_reference(key: DataKey, header: bytes, number: int, payload: bytes, packet: bytes) -> bytes:
    """The packet that ours should be; a random IV is that of ours."""
    if key.is_epoch:
        epoch = EpochKey(1, bytes(key.send_key), key.cipher)
        aead = data_packet.make_aead(key.cipher, epoch.cipher_key)
        return seal_epoch(aead, epoch.iv, header, 1, number, payload)
    if key.digest is None:
        aead = data_packet.make_aead(key.cipher, key.send_key)
        return data_packet.seal(aead, bytes(key.send_iv), header, number, payload)
    sealer = CbcHmac(key.send_key, key.digest, key.send_hmac)
    if key.static_time is not None:
        iv = packet[sealer.mac_length :][:BLOCK]
        return seal_static(sealer, iv, number, key.static_time, payload)
    return seal_cbc(sealer, packet[len(header) + sealer.mac_length :][:BLOCK], header, number, payload)


def both_ends(cipher: Cipher, kind: str) -> Iterator[DataKey]:
    """The keys of the client and of the server."""
    for number, role in enumerate((Role.CLIENT, Role.SERVER)):
        if kind == "static":
            yield static_data_key(StaticKey(MATERIAL), number, cipher, "SHA256", 1_700_000_000)
        else:
            yield slice_keys(MATERIAL, role, cipher, KeyId(3), is_epoch=kind == "epoch")


KINDS = [
    *((cipher, "cbc" if cipher.is_cbc else "aead") for cipher in Cipher),
    *((cipher, "static" if cipher.is_cbc else "epoch") for cipher in Cipher),
]


@pytest.mark.parametrize(("cipher", "kind"), KINDS)
@pytest.mark.parametrize("wire_id", [WirePeerId(0x010203), None])
def test_batches_are_those_of_the_reference(cipher: Cipher, kind: str, wire_id: WirePeerId | None) -> None:
    client, server = (
        make_slot(key, 64, KeyUse(is_aes_gcm=cipher.is_aes_gcm)) for key in both_ends(cipher, kind)
    )
    client.address_to(wire_id)
    payloads = [bytes([index]) * (14 + index * 40) for index in range(40)]
    packets = [*client.seal(payloads[:1]), *client.seal(payloads[1:])]
    key = next(both_ends(cipher, kind))
    header = data_packet.serialize_data_header(3, wire_id)
    assert packets == [
        sealed_by_the_reference(key, header, index + 1, payload, packets[index])
        for index, payload in enumerate(payloads)
    ]
    if key.digest is not None:
        begin = (0 if kind == "static" else len(header)) + digest_length(key.digest)
        assert len({packet[begin : begin + BLOCK] for packet in packets}) == 40, "each packet has another IV"
    assert server.open(packets, fail, is_v2=wire_id is not None) == payloads
    assert server.accepted == 40


def test_packets_that_came_the_short_way_are_in_the_window_before_the_next_batch() -> None:
    client, server = slot(), slot(Role.SERVER)
    packets = client.seal([bytes([index]) * 20 for index in range(6)])
    server.open(packets[:1], fail, is_v2=True)
    # What the short way does with packets 2 and 3.
    server.awaited += 2
    server.following += 2
    reasons: list[str] = []
    assert server.open(packets, reasons.append, is_v2=True) == [bytes([index]) * 20 for index in (3, 4, 5)]
    assert reasons == ["replay"] * 3
    assert server.awaited == 7
    assert server.highest_packet_id == 6


def test_an_id_is_never_used_twice_and_sealing_stops_at_the_last_one() -> None:
    client = slot()
    client.next_id = 0xFFFFFFFE
    packets = client.seal([bytes(20)] * 5)
    assert [packet[4:8] for packet in packets] == [b"\xff\xff\xff\xfe", b"\xff\xff\xff\xff"]
    assert client.seal([bytes(20)]) == []


def test_a_closed_slot_seals_nothing_that_can_be_sent_and_opens_nothing() -> None:
    client, server = slot(), slot(Role.SERVER)
    packets = client.seal([bytes(20)])
    server.close()
    reasons: list[str] = []
    assert server.open(packets, reasons.append, is_v2=True) == []
    assert reasons == ["tag_mismatch"]


def test_secrets_do_not_show() -> None:
    assert bytes(slice_keys(MATERIAL, Role.CLIENT, Cipher.AES_256_GCM, KeyId(0)).send_key).hex() not in repr(
        slot()
    )


def asked(use: KeyUse, highest: int = 0) -> str | None:
    return use.trigger(highest) if use.is_due() else None


def test_the_aead_limit_asks_for_a_new_key_at_seven_eighths_of_either_direction() -> None:
    for count in ("count_sent", "count_received"):
        use = KeyUse(is_aes_gcm=True)
        packets = key_use.AES_GCM_RENEGOTIATE // 2 - 1
        getattr(use, count)(packets, 0)
        assert asked(use) is None
        getattr(use, count)(key_use.CHECK_PACKETS, 0)
        assert asked(use) == "aead_limit"
        getattr(use, count)(key_use.CHECK_PACKETS, 0)
        assert asked(use) is None, "told once"
        assert use.aead_ratio() == pytest.approx(7 / 8, rel=1e-3)


def test_blocks_are_never_counted_too_low() -> None:
    use = KeyUse(is_aes_gcm=True)
    exact = 0
    for size in (1, 15, 16, 17, 1514, 64):
        use.count_sent(1, size)
        exact += -(-size // 16) + 1
        assert use.blocks >= exact


def test_chacha_has_no_aead_limit() -> None:
    use = KeyUse(is_aes_gcm=False)
    use.count_sent(2**35, 2**40)
    assert asked(use) is None
    assert use.aead_ratio() == 0.0


def test_packet_ids_near_the_end_ask_for_a_new_key() -> None:
    use = KeyUse(is_aes_gcm=True)
    use.count_sent(key_use.CHECK_PACKETS, 0)
    assert asked(use, 0xFEFFFFFF) is None
    assert asked(use, 0xFF000000) is None, "not so soon again"
    use.count_sent(key_use.CHECK_PACKETS, 0)
    assert asked(use, 0xFF000000) == "packets"


def test_failed_tags_ask_for_a_new_key_and_end_the_old_one() -> None:
    server = slot(Role.SERVER)
    server.use.failed_tags = key_use.FAILED_TAGS_RENEGOTIATE
    server.use.count_received(key_use.CHECK_PACKETS, 0)
    assert server.limit_reached() == "aead_limit"
    server.use.failed_tags = key_use.FAILED_TAGS_END
    reasons: list[str] = []
    packets = slot().seal([bytes(20)])
    assert server.open(packets, reasons.append, is_v2=True) == []
    assert reasons == ["key_expired"]
    assert server.awaited == NEVER, "the short way ends here too"


@pytest.mark.parametrize(("octets", "packets", "trigger"), [(1000, 0, "bytes"), (0, 10, "packets")])
def test_configured_limits_are_met_exactly(octets: int, packets: int, trigger: str) -> None:
    use = KeyUse(is_aes_gcm=True, renegotiate_bytes=octets, renegotiate_packets=packets)
    for _ in range(4):
        use.count_sent(1, 100)
        use.count_received(1, 100)
    assert asked(use) is None
    use.count_sent(1, 100)
    assert asked(use) is None
    use.count_received(1, 100)
    assert asked(use) == trigger
