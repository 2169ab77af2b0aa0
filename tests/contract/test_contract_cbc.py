"""Contract: CBC ciphers with an HMAC carry frames both ways; wrong packets are dropped by name."""

from __future__ import annotations

import pytest

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.role import Role
from tests.contract.dataplane_rig import BROADCAST, Rig, frame, station

CBC = [cipher for cipher in Cipher if cipher.is_cbc]
LENGTHS = range(60, 60 + 17)


@pytest.mark.parametrize("is_v2", [True, False], ids=["v2", "v1"])
@pytest.mark.parametrize("digest", ["SHA1", "SHA256", "SHA384", "SHA512"])
@pytest.mark.parametrize("cipher", CBC)
def test_frames_of_all_paddings_cross_both_ways(rig: Rig, cipher: Cipher, digest: str, is_v2: bool) -> None:
    peer = rig.peer(1, cipher, digest=digest, is_v2=is_v2)
    lengths = (*LENGTHS, 1500)
    for length in lengths:
        peer.send(frame(2, 1).ljust(length, b"i"))
        assert rig.frames() == [frame(2, 1).ljust(length, b"i")]
    for length in lengths:
        rig.put(frame(1, 2).ljust(length, b"o"))
        assert peer.payloads() == [frame(1, 2).ljust(length, b"o")]


@pytest.mark.parametrize("at", [4, 23, 24, 40, -1], ids=["hmac", "hmac-end", "iv", "text", "text-end"])
def test_a_changed_octet_anywhere_is_a_tag_mismatch(rig: Rig, at: int) -> None:
    peer = rig.peer(1, Cipher.AES_256_CBC)
    packet = peer.seal(frame(2, 1))
    at %= len(packet)
    peer.send_raw(packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :])
    rig.dropped("receive", "tag_mismatch")
    peer.send_raw(packet)
    assert rig.frames() == [frame(2, 1)], "a forgery must not use up the packet id"
    peer.send_raw(packet)
    rig.dropped("receive", "replay")


def test_stumps_and_short_frames_are_dropped_by_name(rig: Rig) -> None:
    peer = rig.peer(1, Cipher.AES_128_CBC)
    packet = peer.seal(frame(2, 1))
    for length in (4, 20, 40):
        peer.send_raw(packet[:length])
    rig.dropped("receive", "short_packet", 3)
    peer.send_raw(packet[:-16])
    peer.send_raw(packet[:-1])
    rig.dropped("receive", "tag_mismatch", 2)
    peer.send(b"short")
    rig.dropped("receive", "short_frame")


def test_each_packet_has_another_iv(rig: Rig) -> None:
    peer = rig.peer(1, Cipher.AES_256_CBC)
    for _ in range(3):
        rig.put(frame(1, 2))
    packets = peer.datagrams(3)
    assert len({packet[24:40] for packet in packets}) == 3
    assert [peer.open(packet).packet_id for packet in packets] == [1, 2, 3]


def test_a_flood_reaches_peers_of_every_cipher_and_relays_change_it(rig: Rig) -> None:
    peers = [rig.peer(number, cipher) for number, cipher in enumerate(Cipher, start=1)]
    rig.put(frame(1, BROADCAST, b"to all"))
    for peer in peers:
        assert peer.payloads() == [frame(1, BROADCAST, b"to all")]
    for sender in peers:
        sent = frame(station(sender.number + 100), BROADCAST, b"from one")
        sender.send(sent)
        assert rig.frames() == [sent]
        for other in peers:
            if other is not sender:
                assert other.payloads() == [sent]


def test_batches_in_one_read_are_opened_in_order(rig: Rig) -> None:
    peer = rig.peer(1, Cipher.AES_256_CBC, digest="SHA256")
    frames = [frame(2, 1, bytes([number])) for number in range(12)]
    peer.send_batch([peer.seal(item) for item in frames])
    assert rig.frames(12) == frames


def test_a_renegotiation_may_keep_both_keys(rig: Rig) -> None:
    peer = rig.peer(1, Cipher.AES_192_CBC, digest="SHA512")
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, 1))
    peer.send_raw(peer.seal(frame(2, 1, b"new"), key_id=1, packet_id=1))
    peer.send_raw(peer.seal(frame(2, 1, b"old"), key_id=0, packet_id=1))
    assert rig.frames(2) == [frame(2, 1, b"new"), frame(2, 1, b"old")]
