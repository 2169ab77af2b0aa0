"""Contract: a data plane of a static key takes every datagram for data of its only peer."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import pytest

from bridged.dataplane.contract import ControlReceived, PeerFloated, PeerSettings
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import DataKey, static_data_key
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.cbc_packet import CbcHmac
from bridged.protocol.packets.static_packet import OpenedStaticData, marked_iv, open_static, seal_static
from bridged.runtime.tunnels.replay_mark import mark_of
from bridged.units import KeyId, PeerHandle
from tests.contract.dataplane_rig import HandPeer, Rig, frame, material, until

SECRET = StaticKey(material(5))
NOW = int(time.time())
ORIGIN = bytes(range(32))


class StaticPeer(HandPeer):
    """The far end, which has the other direction."""

    def __init__(self, rig: Rig, cipher: Cipher = Cipher.AES_256_CBC, digest: str = "SHA1") -> None:
        super().__init__(1, cipher, digest=digest)
        self.target = ("127.0.0.1", rig.port)
        rig.peers.append(self)

    def static(self, direction: int | None, mark: int = 0, time_: int = NOW) -> DataKey:
        return static_data_key(SECRET, direction, self.cipher, self.digest, time_, mark, ORIGIN)

    def join(self, rig: Rig, mark: int = 0, direction: int | None = 0, time_: int = NOW) -> None:
        rig.plane.add_peer(PeerSettings(PeerHandle(1), "site-1", self.endpoint, None, None))
        rig.plane.install_key(PeerHandle(1), self.static(direction, mark, time_))
        rig.plane.use_key(PeerHandle(1), KeyId(0))

    def packet(self, payload: bytes, number: int, packet_time: int = NOW, direction: int | None = 1) -> bytes:
        key = self.static(direction)
        sealer = CbcHmac(key.send_key, self.digest, key.send_hmac)
        return seal_static(sealer, os.urandom(16), number, packet_time, payload)

    def opened(self, count: int = 1) -> list[OpenedStaticData]:
        key = self.static(1)
        opener = CbcHmac(key.receive_key, self.digest, key.receive_hmac)
        return [open_static(opener, packet) for packet in self.datagrams(count)]


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(static_key=True)


@pytest.mark.parametrize("digest", ["SHA1", "SHA256", "SHA512"])
@pytest.mark.parametrize("cipher", [Cipher.AES_256_CBC, Cipher.AES_128_CBC])
def test_frames_cross_both_ways(rig: Rig, cipher: Cipher, digest: str) -> None:
    peer = StaticPeer(rig, cipher, digest)
    peer.join(rig)
    for number, length in enumerate((60, 61, 62, 75, 76, 1500), start=1):
        peer.send_raw(peer.packet(frame(2, 1).ljust(length, b"i"), number))
        assert rig.frames() == [frame(2, 1).ljust(length, b"i")]
        rig.put(frame(1, 2).ljust(length, b"o"))
        (opened,) = peer.opened()
        assert opened.payload == frame(1, 2).ljust(length, b"o")
        assert (opened.packet_id, opened.packet_time) == (number, NOW)
    peer.send_batch([peer.packet(frame(2, 1, bytes([number])), 10 + number) for number in range(9)])
    assert rig.frames(9) == [frame(2, 1, bytes([number])) for number in range(9)]


def test_an_older_time_is_a_replay_and_with_a_newer_one_ids_begin_again(rig: Rig) -> None:
    peer = StaticPeer(rig)
    peer.join(rig)
    first = peer.packet(frame(2, 1, b"1"), 1)
    peer.send_raw(first)
    peer.send_raw(peer.packet(frame(2, 1, b"2"), 1, NOW + 1))
    assert rig.frames(2) == [frame(2, 1, b"1"), frame(2, 1, b"2")]
    peer.send_raw(peer.packet(frame(2, 1, b"2"), 1, NOW + 1))
    rig.dropped("receive", "replay")
    peer.send_raw(first)
    peer.send_raw(peer.packet(frame(2, 1, b"3"), 9, NOW))
    rig.dropped("receive", "replay_too_old", 2)


def test_what_an_earlier_session_took_is_a_replay_and_what_follows_is_new(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(static_key=True, replay_window=64)
    peer = StaticPeer(rig)
    peer.join(rig, mark=mark_of(NOW, 100))
    peer.send_raw(peer.packet(frame(2, 1, b"a"), 200, NOW - 1))
    peer.send_raw(peer.packet(frame(2, 1, b"b"), 36, NOW))
    rig.dropped("receive", "replay_too_old", 2)
    peer.send_raw(peer.packet(frame(2, 1, b"c"), 37, NOW))
    peer.send_raw(peer.packet(frame(2, 1, b"d"), 100, NOW))
    rig.dropped("receive", "replay", 2)
    assert rig.snapshot().peers[0].replay_mark == mark_of(NOW, 100)
    for number in (103, 101, 102):
        peer.send_raw(peer.packet(frame(2, 1, bytes([number])), number, NOW))
    assert rig.frames(3) == [frame(2, 1, bytes([number])) for number in (103, 101, 102)]
    assert rig.snapshot().peers[0].replay_mark == mark_of(NOW, 103)
    peer.send_raw(peer.packet(frame(2, 1, b"e"), 5, NOW + 1))
    assert rig.frames() == [frame(2, 1, b"e")]
    assert rig.plane.remove_peer(PeerHandle(1)).replay_mark == mark_of(NOW + 1, 5)


def test_forgeries_change_nothing(rig: Rig) -> None:
    peer = StaticPeer(rig)
    peer.join(rig)
    packet = peer.packet(frame(2, 1), 1, NOW + 9)
    for at in (0, 19, 20, 36, len(packet) - 1):
        peer.send_raw(packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :])
    rig.dropped("receive", "tag_mismatch", 5)
    peer.send_raw(packet[:30])
    rig.dropped("receive", "short_packet")
    peer.send_raw(peer.packet(frame(2, 1), 1))
    assert rig.frames() == [frame(2, 1)]


def test_own_packets_that_come_back_change_nothing_where_both_directions_have_one_key(rig: Rig) -> None:
    """Ours have a later time: taken for the peer's, they would make replays of all that it sends."""
    peer = StaticPeer(rig)
    peer.join(rig, direction=None, time_=NOW + 50)
    peer.send_raw(peer.packet(frame(2, 1, b"1"), 1, NOW, None))
    assert rig.frames() == [frame(2, 1, b"1")]
    for number in range(3):
        rig.put(frame(1, 2, bytes([number])))
    ours = peer.datagrams(3)
    key = peer.static(None)
    opened = [open_static(CbcHmac(key.receive_key, peer.digest, key.receive_hmac), packet) for packet in ours]
    assert all(one.iv == marked_iv(ORIGIN, one.packet_id, NOW + 50) for one in opened)
    peer.send_batch(ours)
    peer.send_raw(ours[-1])
    rig.dropped("receive", "reflected", 4)
    assert rig.snapshot().peers[0].replay_mark == mark_of(NOW, 1)
    # One bit of the IV or the text is a forgery, no reflection.
    peer.send_raw(ours[0][:-1] + bytes([ours[0][-1] ^ 1]))
    rig.dropped("receive", "tag_mismatch")
    peer.send_raw(peer.packet(frame(2, 1, b"2"), 2, NOW, None))
    assert rig.frames() == [frame(2, 1, b"2")]
    # A peer that was started in the same second has the same times and ids as we have.
    peer.send_raw(peer.packet(frame(2, 1, b"3"), 1, NOW + 50, None))
    assert rig.frames() == [frame(2, 1, b"3")]


def test_packets_of_an_earlier_run_that_come_back_are_known(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(static_key=True)
    peer = StaticPeer(rig)
    peer.join(rig, direction=None, time_=NOW - 7)
    rig.put(frame(1, 2))
    (earlier,) = peer.datagrams(1)
    rig.plane.remove_peer(PeerHandle(1))
    peer.join(rig, direction=None, time_=NOW)
    peer.send_raw(earlier)
    rig.dropped("receive", "reflected")
    assert rig.snapshot().peers[0].replay_mark == 0


def test_where_each_direction_has_its_key_ivs_are_random(rig: Rig) -> None:
    peer = StaticPeer(rig)
    peer.join(rig)
    rig.put(frame(1, 2))
    (opened,) = peer.opened()
    assert opened.iv != marked_iv(ORIGIN, opened.packet_id, opened.packet_time)


@pytest.mark.parametrize("has_peer", [False, True])
def test_an_empty_datagram_is_dropped_and_costs_nothing_else(rig: Rig, has_peer: bool) -> None:
    peer = StaticPeer(rig)
    if has_peer:
        peer.join(rig)
    peer.send_raw(b"")
    until(lambda: rig.drops("receive", "short_packet") == 1, "the drop")
    if not has_peer:
        peer.join(rig)
    peer.send_raw(peer.packet(frame(2, 1), 1))
    assert rig.frames() == [frame(2, 1)]


def test_the_peer_is_followed_to_where_it_sends_from(rig: Rig) -> None:
    peer = StaticPeer(rig)
    peer.join(rig)
    before = peer.move()
    peer.send_raw(peer.packet(frame(2, 1), 1))
    assert rig.frames() == [frame(2, 1)]
    assert rig.event(PeerFloated) == PeerFloated(PeerHandle(1), peer.endpoint, before)


def test_without_a_peer_a_datagram_goes_to_the_control_plane(rig: Rig) -> None:
    peer = StaticPeer(rig)
    packet = peer.packet(frame(2, 1), 1)
    peer.send_raw(packet)
    assert rig.event(ControlReceived) == ControlReceived(packet, peer.endpoint)
    assert isinstance(peer.socket, socket.socket)
