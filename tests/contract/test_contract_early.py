"""Contract: packets that come before their key wait for it, within bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from bridged.dataplane.contract import EARLY_LEAST_OCTETS, EARLY_OCTETS, EARLY_SECONDS
from bridged.errors import DataplaneError
from bridged.protocol.role import Role
from bridged.units import KeyId, PeerHandle
from tests.contract.dataplane_rig import HandPeer, Rig, frame, until
from tests.contract.stream_peer import stream_peer
from tests.lab.bounds import Pace
from tests.lab.waiting import PATIENCE

NEXT = KeyId(1)
ROUNDS = 30
FRAMES_OF_A_ROUND = 40


def lost(rig: Rig) -> int:
    return rig.drops("receive", "unknown_key_id")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("is_v2", [True, False], ids=["v2", "v1"])
def test_packets_under_a_key_that_is_expected_are_delivered_once_it_is_there(
    make_rig: Callable[..., Rig], is_v2: bool, workers: int
) -> None:
    rig = make_rig(workers=workers)
    peer = rig.peer(1, is_v2=is_v2)
    rig.plane.expect_key(peer.handle, NEXT)
    early = [frame(2, 1, bytes([number])) for number in range(3)]
    for number, payload in enumerate(early, 1):
        peer.send_raw(peer.seal(payload, key_id=NEXT, packet_id=number))
    peer.send(frame(2, 1, b"under the old key"))
    assert rig.frames() == [frame(2, 1, b"under the old key")]
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, NEXT))
    assert rig.frames(3) == early
    peer.send_raw(peer.seal(frame(2, 1, b"later"), key_id=NEXT, packet_id=4))
    assert rig.frames() == [frame(2, 1, b"later")]
    assert lost(rig) == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("carrier", ["udp", "tcp"])
def test_none_overtakes_what_waited_for_its_key(
    make_rig: Callable[..., Rig], carrier: str, workers: int
) -> None:
    """Keys come while their packets arrive. Over TCP, whatever is overtaken would be lost."""
    rig = make_rig(workers=workers)
    # Their ids lead to different workers.
    peers = [stream_peer(rig, number) if carrier == "tcp" else rig.peer(number) for number in (1, 2)]
    late = 0
    for turn in range(ROUNDS):
        peer, key_id = peers[turn % 2], KeyId(1 + turn % 7)
        rig.plane.remove_key(peer.handle, key_id)
        rig.plane.expect_key(peer.handle, key_id)
        payloads = [frame(3, 4, bytes([turn, number])) for number in range(FRAMES_OF_A_ROUND)]
        packets = [peer.seal(item, key_id=key_id, packet_id=at) for at, item in enumerate(payloads, 1)]
        begun = threading.Event()

        def talk(
            peer: HandPeer = peer, packets: list[bytes] = packets, begun: threading.Event = begun
        ) -> None:
            for packet in packets[: len(packets) // 4]:
                peer.send_raw(packet)
            begun.set()
            for packet in packets[len(packets) // 4 :]:
                peer.send_raw(packet)

        since = time.monotonic()
        talker = threading.Thread(target=talk)
        talker.start()
        assert begun.wait(5 * PATIENCE)
        rig.plane.install_key(peer.handle, peer.key(Role.SERVER, key_id))
        is_late = time.monotonic() - since > EARLY_SECONDS / 2
        talker.join()
        if is_late:
            # A busy machine: some may have been dropped because they waited too long.
            late += 1
            while not rig.tap_is_quiet():
                rig.frames()
            continue
        assert rig.frames(len(payloads)) == payloads
    assert late < ROUNDS / 2
    assert rig.snapshot().drops.keys() <= ({("receive", "unknown_key_id")} if late else set())


def test_packets_whose_key_is_there_stay_if_the_next_key_is_expected_at_once(rig: Rig) -> None:
    """Also while the WAN is held: they are no longer in the socket."""
    peer = rig.peer(1)
    rig.plane.expect_key(peer.handle, NEXT)
    for number in (1, 2):
        peer.send_raw(peer.seal(frame(2, 1, bytes([number])), key_id=NEXT, packet_id=number))
    peer.send(frame(2, 1, b"mark"))
    rig.frames()
    rig.plane.hold(lan=False, wan=True)
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, NEXT))
    rig.plane.expect_key(peer.handle, KeyId(2))
    assert rig.frames(2) == [frame(2, 1, bytes([1])), frame(2, 1, bytes([2]))]
    rig.plane.hold(lan=False, wan=False)
    assert lost(rig) == 0


def test_a_batch_waits_whole_and_each_packet_passes_once(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.plane.expect_key(peer.handle, NEXT)
    payloads = [frame(2, 1, bytes([number])) for number in range(6)]
    packets = [peer.seal(payload, key_id=NEXT, packet_id=at) for at, payload in enumerate(payloads, 1)]
    peer.send_batch(packets)
    peer.send_raw(packets[2])
    peer.send(frame(2, 1, b"mark"))
    rig.frames()
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, NEXT))
    assert rig.frames(6) == payloads
    rig.dropped("receive", "replay")


def test_only_the_key_that_is_expected_is_waited_for(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.plane.expect_key(peer.handle, NEXT)
    peer.send_raw(peer.seal(frame(2, 1), key_id=2, packet_id=1))
    rig.dropped("receive", "unknown_key_id")
    stranger = HandPeer(1, peer.cipher)
    stranger.target = peer.target
    stranger.send_raw(stranger.seal(frame(2, 1), key_id=NEXT, packet_id=1))
    rig.dropped("receive", "unknown_key_id", 2)
    stranger.close()


@pytest.mark.measures
def test_packets_that_wait_have_a_limit_in_bytes(rig: Rig) -> None:
    peer = rig.peer(1)
    pace = Pace(EARLY_SECONDS)
    rig.plane.expect_key(peer.handle, NEXT)
    payload = frame(2, 1, bytes(1300))
    packets = EARLY_OCTETS // len(peer.seal(payload)) + 5
    for number in range(1, packets + 1):
        peer.send_raw(peer.seal(payload, key_id=NEXT, packet_id=number))
        if number % 16 == 0:
            peer.send(frame(2, 1, b"mark"))
            rig.frames()
    pace.step()
    rig.dropped("receive", "unknown_key_id", 5)
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, NEXT))
    assert rig.frames(packets - 5) == [payload] * (packets - 5)


@pytest.mark.measures
def test_short_packets_that_wait_have_a_limit_in_number(rig: Rig) -> None:
    peer = rig.peer(1, is_v2=False)
    pace = Pace(EARLY_SECONDS)
    rig.plane.expect_key(peer.handle, NEXT)
    first = peer.seal(frame(2, 1), key_id=NEXT, packet_id=1)[:1]
    held = EARLY_OCTETS // EARLY_LEAST_OCTETS
    for number in range(1, held + 6):
        peer.send_raw(first)
        if number % 16 == 0:
            peer.send(frame(2, 1, b"mark"))
            rig.frames()
    pace.step()
    rig.dropped("receive", "unknown_key_id", 5)
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, NEXT))
    rig.dropped("receive", "short_packet", held)


def test_packets_that_wait_too_long_are_dropped(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.plane.expect_key(peer.handle, NEXT)
    peer.send_raw(peer.seal(frame(2, 1), key_id=NEXT, packet_id=1))
    peer.send(frame(2, 1, b"mark"))
    rig.frames()
    time.sleep(EARLY_SECONDS + 0.1)
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, NEXT))
    rig.dropped("receive", "unknown_key_id")
    assert rig.tap_is_quiet()


@pytest.mark.parametrize("way", ["remove_key", "expect_another", "remove_peer"])
def test_packets_whose_key_does_not_come_are_counted(make_rig: Callable[..., Rig], way: str) -> None:
    rig = make_rig()
    peer = rig.peer(1)
    rig.plane.expect_key(peer.handle, NEXT)
    for number in (1, 2):
        peer.send_raw(peer.seal(frame(2, 1), key_id=NEXT, packet_id=number))
    peer.send(frame(2, 1, b"mark"))
    rig.frames()
    if way == "remove_key":
        rig.plane.remove_key(peer.handle, NEXT)
    elif way == "expect_another":
        rig.plane.expect_key(peer.handle, KeyId(2))
    else:
        assert rig.plane.remove_peer(peer.handle).counters.drops[("receive", "unknown_key_id")] == 2
    until(lambda: lost(rig) == 2, "two packets to be counted")
    if way != "remove_peer":
        rig.plane.install_key(peer.handle, peer.key(Role.SERVER, NEXT))
        assert rig.tap_is_quiet()


def test_a_key_of_nobody_is_not_expected(rig: Rig) -> None:
    with pytest.raises(DataplaneError) as caught:
        rig.plane.expect_key(PeerHandle(7), NEXT)
    assert caught.value.code == "unknown_peer"
