"""Key slots against the reference layout, and how far a key may be used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridged.dataplane.portable.tables import key_use
from bridged.dataplane.portable.tables.epoch_keys import COUNTER_END, EpochSlot
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
from bridged.protocol.packets.epoch_packet import parse_epoch
from bridged.protocol.packets.static_packet import seal_static
from bridged.protocol.role import Role
from bridged.units import KeyId, WirePeerId
from tests.lab.epoch_sealing import seal_epoch

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


def pair(kind: str, cipher: Cipher = Cipher.AES_256_GCM) -> tuple[KeySlot, KeySlot]:
    """Client and server."""
    client, server = (make_slot(key, 64, KeyUse(is_aes_gcm=False)) for key in both_ends(cipher, kind))
    for end in (client, server):
        end.address_to(WirePeerId(0x010203))
    return client, server


LONE_KINDS = ["aead", "epoch"]


@pytest.mark.parametrize("cipher", [cipher for cipher in Cipher if not cipher.is_cbc])
@pytest.mark.parametrize("kind", LONE_KINDS)
def test_lone_packets_are_those_of_the_reference(kind: str, cipher: Cipher) -> None:
    client, server = pair(kind, cipher)
    key = next(both_ends(cipher, kind))
    for number, payload in enumerate((bytes(14), b"1" * 60, b"2" * 1500), start=1):
        packet = client.seal_one(payload)
        assert packet == sealed_by_the_reference(key, client.header, number, payload, b"")
        assert server.open_next(packet) == payload
    (packet,) = client.seal([bytes(60)])
    assert packet == sealed_by_the_reference(key, client.header, 4, bytes(60), b"")
    for use, ours in ((client.use, "sent"), (server.use, "received")):
        octets = sum(len(packet) for packet in client.seal([bytes(14), b"1" * 60, b"2" * 1500]))
        counts = (getattr(use, f"packets_{ours}"), getattr(use, f"octets_{ours}"))
        assert counts == ((7, 2 * octets + len(packet)) if ours == "sent" else (3, octets))


@pytest.mark.parametrize("kind", LONE_KINDS)
def test_lone_packets_that_are_not_next_in_order_are_left_to_batches(kind: str) -> None:
    client, server = pair(kind)
    packets = client.seal([bytes([index]) * 20 for index in range(6)])
    assert server.open_next(packets[1]) is None
    assert server.open_next(packets[0]) == bytes([0]) * 20
    forged = packets[1][:-1] + bytes((packets[1][-1] ^ 1,))
    assert server.open_next(forged) is None
    for lone in (1, 2):
        assert server.open_next(packets[lone]) == bytes([lone]) * 20
    reasons: list[str] = []
    assert server.open(packets, reasons.append, is_v2=True) == [bytes([index]) * 20 for index in (3, 4, 5)]
    assert reasons == ["replay"] * 3
    assert server.open_next(packets[5]) is None
    assert server.open([forged], reasons.append, is_v2=True) == []
    assert reasons[3:] == ["tag_mismatch"]
    assert [server.open_next(packet) for packet in client.seal([b"next" * 5])] == [b"next" * 5]


@pytest.mark.parametrize("kind", LONE_KINDS)
def test_lone_packets_wait_until_the_limits_were_looked_at(kind: str) -> None:
    client, server = pair(kind)
    client.use.due_sent = server.use.due_received = 1
    packet = client.seal_one(bytes(20))
    assert packet is not None
    assert client.seal_one(bytes(20)) is None
    assert client.seal([b"next" * 5])[0][4:12] != packet[4:12], "no id was used up or used twice"
    assert server.open_next(packet) == bytes(20)
    assert server.open_next(client.seal([bytes(20)])[0]) is None
    assert server.limit_reached() is None
    assert server.use.due_received > server.use.packets_received


def test_a_worn_epoch_is_followed_by_the_next_one_at_both_ends() -> None:
    client, server = pair("epoch")
    assert isinstance(client, EpochSlot)
    assert isinstance(server, EpochSlot)
    lone = [client.seal_one(bytes(20)), client.seal_one(b"late" * 5)]
    client.next_id = 1 << 48 | COUNTER_END
    (last,) = client.seal([b"next" * 5])
    assert parse_epoch(last)[1:] == (2, 1)
    assert server.open([packet for packet in (lone[0], last) if packet], fail, is_v2=True) == [
        bytes(20),
        b"next" * 5,
    ]
    lone_packet = client.seal_one(bytes(20))
    assert lone_packet is not None
    assert parse_epoch(lone_packet)[1:] == (2, 2)
    assert server.open_next(lone_packet) == bytes(20)
    assert lone[1] is not None
    assert server.open_next(lone[1]) is None
    assert server.open([lone[1]], fail, is_v2=True) == [b"late" * 5], "of the epoch before"
    answer = server.seal_one(bytes(20))
    assert answer is not None
    assert parse_epoch(answer)[1:] == (2, 1), "the other end follows"


def test_an_epoch_ends_at_the_limit_of_its_cipher() -> None:
    for cipher, follows in ((Cipher.AES_128_GCM, 2), (Cipher.CHACHA20_POLY1305, 1)):
        client, _ = pair("epoch", cipher)
        client.use.count_sent(key_use.AES_GCM_RENEGOTIATE, 0)
        (packet,) = client.seal([bytes(20)])
        assert parse_epoch(packet)[1:] == (follows, 1)
        (packet,) = client.seal([bytes(20)])
        assert parse_epoch(packet)[1:] == (follows, 2)


def test_a_closed_slot_of_epochs_seals_and_opens_nothing() -> None:
    client, server = pair("epoch")
    packets = client.seal([bytes(20)] * 2)
    for end in (client, server):
        end.close()
    assert client.seal([bytes(20)]) == []
    reasons: list[str] = []
    assert server.open_next(packets[0]) is None
    assert server.open(packets, reasons.append, is_v2=True) == []
    assert reasons == ["key_expired"] * 2


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
