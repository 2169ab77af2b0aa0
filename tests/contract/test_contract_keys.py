"""Contract: authentication first, then replay; keys come, go, and are wiped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridged.dataplane.contract import KeyNearLimit
from bridged.errors import DataplaneError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.occ import PING
from bridged.protocol.role import Role
from bridged.units import KeyId, PeerHandle
from tests.contract.dataplane_rig import HandPeer, Rig, frame, refused, until


def flipped(packet: bytes, at: int) -> bytes:
    return packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]


@pytest.mark.parametrize("cipher", [Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305])
@pytest.mark.parametrize("at", [5, 9, 23, 24, 60], ids=["packet-id", "tag", "tag-end", "text", "text-end"])
def test_a_changed_octet_anywhere_is_a_tag_mismatch(rig: Rig, cipher: Cipher, at: int) -> None:
    peer = rig.peer(1, cipher)
    packet = peer.seal(frame(2, 1))
    peer.send_raw(flipped(packet, at))
    rig.dropped("receive", "tag_mismatch")
    assert rig.tap_is_quiet()
    peer.send_raw(packet)
    assert rig.frames() == [frame(2, 1)], "a forgery must not use up the packet id"


def test_the_key_id_is_authenticated_in_v2(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, 1))
    packet = peer.seal(frame(2, 1), key_id=0)
    peer.send_raw(bytes([packet[0] | 1]) + packet[1:])
    rig.dropped("receive", "tag_mismatch")


def test_a_forged_packet_id_does_not_move_the_window(rig: Rig) -> None:
    peer = rig.peer(1)
    peer.send(frame(2, 1, b"first"))
    rig.frames()
    forged = bytearray(peer.seal(frame(2, 1), packet_id=2))
    forged[4:8] = (100_000).to_bytes(4, "big")
    peer.send_raw(bytes(forged))
    rig.dropped("receive", "tag_mismatch")
    peer.send(frame(2, 1, b"second"))
    assert rig.frames() == [frame(2, 1, b"second")]


def test_each_packet_passes_once_in_any_order_within_the_window(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(replay_window=64)
    peer = rig.peer(1)
    packets = {number: peer.seal(frame(2, 1, bytes([number])), packet_id=number) for number in range(1, 21)}
    order = [3, 1, 2, 9, 4, 20, 19, 10]
    for number in order:
        peer.send_raw(packets[number])
    assert rig.frames(len(order)) == [frame(2, 1, bytes([number])) for number in order]
    for number in order:
        peer.send_raw(packets[number])
    rig.dropped("receive", "replay", len(order))
    peer.send_raw(packets[5])
    assert rig.frames() == [frame(2, 1, bytes([5]))]


def test_a_repeated_packet_inside_a_batch_passes_once(rig: Rig) -> None:
    peer = rig.peer(1)
    packets = [peer.seal(frame(2, 1, bytes([number]))) for number in range(6)]
    peer.send_batch([*packets[:3], packets[1], packets[2], *packets[3:]])
    assert rig.frames(6) == [frame(2, 1, bytes([number])) for number in range(6)]
    rig.dropped("receive", "replay", 2)


def test_packets_behind_the_window_are_too_old(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(replay_window=64)
    peer = rig.peer(1)
    for number in (1000, 937):
        peer.send_raw(peer.seal(frame(2, 1, bytes([number & 0xFF])), packet_id=number))
    assert rig.frames(2) == [frame(2, 1, bytes([1000 & 0xFF])), frame(2, 1, bytes([937 & 0xFF]))]
    for number in (936, 1):
        peer.send_raw(peer.seal(frame(2, 1), packet_id=number))
    rig.dropped("receive", "replay_too_old", 2)


def test_unknown_ids_and_stumps_are_dropped_by_name(rig: Rig) -> None:
    peer = rig.peer(1)
    other = HandPeer(9, Cipher.AES_256_GCM)
    packet = peer.seal(frame(2, 1))
    peer.send_raw(peer.seal(frame(2, 1), key_id=3))
    rig.dropped("receive", "unknown_key_id")
    peer.send_raw(other.seal(frame(2, 1)))
    rig.dropped("receive", "unknown_peer_id")
    for length in (1, 3, 4, 8, 23, 24):
        peer.send_raw(packet[:length])
    rig.dropped("receive", "short_packet", 6)
    other.close()
    assert rig.tap_is_quiet()


def test_an_empty_datagram_is_dropped(rig: Rig) -> None:
    peer = rig.peer(1)
    peer.send_raw(b"")
    rig.dropped("receive", "short_packet")


def test_v1_packets_are_told_apart_by_their_source(rig: Rig) -> None:
    peer = rig.peer(1, is_v2=False)
    stranger = HandPeer(1, Cipher.AES_256_GCM, is_v2=False)
    stranger.target = peer.target
    stranger.send(frame(2, 1))
    rig.dropped("receive", "unknown_peer_id")
    peer.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)]
    stranger.close()


def test_a_renegotiation_loses_nothing_and_the_old_key_goes_when_told(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.put(frame(1, 2, b"old"))
    assert peer.datagrams()[0][0] & 7 == 0
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, 1))
    rig.put(frame(1, 2, b"still old"))
    assert peer.datagrams()[0][0] & 7 == 0, "the new key is not used before use_key"
    peer.send_raw(peer.seal(frame(2, 1, b"new"), key_id=1, packet_id=1))
    peer.send_raw(peer.seal(frame(2, 1, b"late"), key_id=0, packet_id=1))
    assert rig.frames(2) == [frame(2, 1, b"new"), frame(2, 1, b"late")], "each key has a window of its own"
    rig.plane.use_key(peer.handle, KeyId(1))
    rig.put(frame(1, 2, b"new"))
    sealed = peer.datagrams()[0]
    assert sealed[0] & 7 == 1
    assert int.from_bytes(sealed[4:8], "big") == 1, "packet ids start anew with the key"
    rig.plane.remove_key(peer.handle, KeyId(0))
    peer.send_raw(peer.seal(frame(2, 1), key_id=0, packet_id=2))
    rig.dropped("receive", "unknown_key_id")
    rig.plane.remove_key(peer.handle, KeyId(0))
    rig.plane.remove_key(PeerHandle(99), KeyId(0))


def test_a_key_of_the_same_id_is_replaced(rig: Rig) -> None:
    peer = rig.peer(1)
    other = HandPeer(2, Cipher.AES_256_GCM, wire_id=1)
    rig.plane.install_key(peer.handle, other.key(Role.SERVER))
    rig.put(frame(1, 2))
    rig.dropped("transmit", "no_key")
    rig.plane.use_key(peer.handle, KeyId(0))
    rig.put(frame(1, 2))
    packet = peer.datagrams()[0]
    assert other.open(packet).payload == frame(1, 2)
    assert refused(peer, packet) == "tag_mismatch"
    other.close()


@pytest.mark.parametrize("way", ["remove_key", "remove_peer", "replace", "stop"])
def test_keys_are_wiped_when_they_go(rig: Rig, way: str) -> None:
    peer = rig.peer(1, with_key=False)
    key = peer.key(Role.SERVER)
    assert any(key.send_key)
    rig.plane.install_key(peer.handle, key)
    if way == "remove_key":
        rig.plane.remove_key(peer.handle, KeyId(0))
    elif way == "remove_peer":
        rig.plane.remove_peer(peer.handle)
    elif way == "replace":
        rig.plane.install_key(peer.handle, peer.key(Role.SERVER))
    else:
        rig.plane.stop()
    for secret in (key.send_key, key.send_iv, key.receive_key, key.receive_iv):
        assert not any(secret)


@pytest.mark.parametrize("limit", [{"renegotiate_packets": 10}, {"renegotiate_bytes": 1000}])
def test_a_configured_limit_is_told_once_for_each_key(
    make_rig: Callable[..., Rig], limit: dict[str, int]
) -> None:
    rig = make_rig(**limit)
    peer = rig.peer(1)
    for _ in range(5):
        rig.put(frame(1, 2, bytes(86)))
    peer.datagrams(5)
    assert rig.events(KeyNearLimit) == []
    for _ in range(10):
        peer.send(frame(2, 1, bytes(86)))
    rig.frames(10)
    told = rig.event(KeyNearLimit)
    trigger = "packets" if "renegotiate_packets" in limit else "bytes"
    assert told == KeyNearLimit(peer.handle, KeyId(0), trigger)  # type: ignore[arg-type]
    for _ in range(10):
        peer.send(frame(2, 1, bytes(86)))
    rig.frames(10)
    assert rig.events(KeyNearLimit) == []


def test_a_received_packet_id_near_the_end_asks_for_a_new_key(rig: Rig) -> None:
    peer = rig.peer(1)
    peer.send_raw(peer.seal(frame(2, 1), packet_id=0xFF000000))
    rig.frames()
    # The limits are looked at now and then only; within some thousand packets they must be.

    def received() -> int:
        return rig.snapshot().peers[0].counters.wire_datagrams["receive"]

    for number in range(1, 3000):
        peer.send_raw(peer.seal(PING, packet_id=0xFF000000 + number))
        if number % 100 == 0:
            until(lambda sent=number: received() >= sent, "packets")  # type: ignore[misc]
    assert rig.event(KeyNearLimit) == KeyNearLimit(peer.handle, KeyId(0), "packets")
    used = rig.snapshot().peers[0]
    assert used.packet_id_used_ratio > 0.99
    assert 0 < used.aead_used_ratio < 0.01, "short packets"


def test_names_that_are_not_there_are_refused(rig: Rig) -> None:
    peer = rig.peer(1)
    for call, code in (
        (lambda: rig.plane.use_key(PeerHandle(7), KeyId(0)), "unknown_peer"),
        (lambda: rig.plane.use_key(peer.handle, KeyId(5)), "unknown_key"),
        (lambda: rig.plane.install_key(PeerHandle(7), peer.key(Role.SERVER)), "unknown_peer"),
        (lambda: rig.plane.send_payload(PeerHandle(7), PING), "unknown_peer"),
        (lambda: rig.plane.remove_peer(PeerHandle(7)), "unknown_peer"),
        (lambda: rig.peer(1), "duplicate_peer"),
    ):
        with pytest.raises(DataplaneError) as caught:
            call()
        assert caught.value.code == code
