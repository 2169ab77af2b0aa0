"""Contract: the epoch format of OpenVPN 2.7 carries frames, and both directions follow the peer's epochs."""

from __future__ import annotations

import pytest

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.epoch_packet import parse_epoch
from tests.contract.dataplane_rig import BROADCAST, HandPeer, Rig, frame

AEAD = [cipher for cipher in Cipher if not cipher.is_cbc]


def epoch_of_answer(rig: Rig, peer: HandPeer) -> int:
    rig.put(frame(1, BROADCAST))
    (packet,) = peer.datagrams()
    assert peer.open(packet).payload == frame(1, BROADCAST)
    return parse_epoch(packet)[1]


@pytest.mark.parametrize("cipher", AEAD)
def test_frames_cross_both_ways(rig: Rig, cipher: Cipher) -> None:
    peer = rig.peer(1, cipher, is_epoch=True)
    for length in (60, 61, 1500):
        peer.send(frame(2, 1).ljust(length, b"i"))
        assert rig.frames() == [frame(2, 1).ljust(length, b"i")]
        rig.put(frame(1, 2).ljust(length, b"o"))
        assert peer.payloads() == [frame(1, 2).ljust(length, b"o")]
    peer.send_batch([peer.seal(frame(2, 1, bytes([number]))) for number in range(9)])
    assert rig.frames(9) == [frame(2, 1, bytes([number])) for number in range(9)]
    for number in range(9):
        rig.put(frame(1, 2, bytes([number])))
    packets = peer.datagrams(9)
    assert [peer.open(packet).packet_id for packet in packets] == list(range(4, 13))


def test_sealing_follows_the_epoch_of_the_peer(rig: Rig) -> None:
    peer = rig.peer(1, is_epoch=True)
    assert epoch_of_answer(rig, peer) == 1
    for epoch in (2, 5):
        packet = peer.seal(frame(2, 1, bytes([epoch])), packet_id=1, epoch=epoch)
        peer.send_raw(packet)
        assert rig.frames() == [frame(2, 1, bytes([epoch]))]
        peer.send_raw(packet)
        rig.dropped("receive", "replay", 1 if epoch == 2 else 2)
        assert epoch_of_answer(rig, peer) == epoch


def test_packets_of_the_epoch_before_are_taken_and_older_ones_not(rig: Rig) -> None:
    peer = rig.peer(1, is_epoch=True)
    late = {epoch: peer.seal(frame(2, 1, bytes([epoch])), packet_id=9, epoch=epoch) for epoch in (1, 2, 3)}
    for epoch in (1, 2, 3):
        peer.send_raw(peer.seal(frame(2, 1), packet_id=1, epoch=epoch))
    assert rig.frames(3) == [frame(2, 1)] * 3
    peer.send_raw(late[2])
    assert rig.frames() == [frame(2, 1, bytes([2]))]
    peer.send_raw(late[1])
    rig.dropped("receive", "replay_too_old")
    peer.send_raw(peer.seal(frame(2, 1), packet_id=1, epoch=8))
    rig.dropped("receive", "unknown_key_id")
    assert epoch_of_answer(rig, peer) == 3


@pytest.mark.parametrize(
    "at", [0, 5, 11, 12, -16, -1], ids=["key-id", "epoch", "counter", "text", "tag", "end"]
)
def test_a_changed_octet_anywhere_changes_nothing_here(rig: Rig, at: int) -> None:
    peer = rig.peer(1, is_epoch=True)
    packet = peer.seal(frame(2, 1), packet_id=1, epoch=2)
    at %= len(packet)
    # Of the epoch: that of 3.
    peer.send_raw(packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :])
    rig.dropped("receive", "unknown_key_id" if at == 0 else "tag_mismatch")
    assert epoch_of_answer(rig, peer) == 1
    peer.send_raw(packet)
    assert rig.frames() == [frame(2, 1)]


def test_stumps_are_dropped_by_name(rig: Rig) -> None:
    peer = rig.peer(1, is_epoch=True)
    packet = peer.seal(frame(2, 1))
    for length in (4, 12, 28):
        peer.send_raw(packet[:length])
    rig.dropped("receive", "short_packet", 3)
    peer.send(b"short")
    rig.dropped("receive", "short_frame")
