"""Contract: keepalive, float, housekeeping messages, and control datagrams from anybody."""

from __future__ import annotations

import os
import select
import socket
import time

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane import create_dataplane
from bridged.dataplane.contract import (
    CONTROL_QUEUE_DATAGRAMS,
    STRANGER_QUEUE_DATAGRAMS,
    ControlReceived,
    OccReceived,
    PeerExpired,
    PeerFloated,
)
from bridged.errors import DataplaneError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.occ import OCC_EXIT, PING
from bridged.protocol.role import Role
from bridged.units import KeyId, PeerHandle
from tests.contract.dataplane_rig import HandPeer, Rig, frame, until
from tests.lab.bounds import Pace, at_most
from tests.lab.waiting import PATIENCE

HARD_RESET = bytes([7 << 3]) + bytes(13)


@pytest.mark.measures
def test_a_ping_is_sent_when_nothing_was_sent_for_so_long(rig: Rig) -> None:
    started = time.monotonic()
    peer = rig.peer(1, ping=0.2)
    assert peer.payloads(2) == [PING, PING]
    took = time.monotonic() - started
    assert took >= 0.3
    at_most(took, 2.0, "two pings")


@pytest.mark.measures
def test_no_ping_while_frames_are_sent(rig: Rig) -> None:
    peer = rig.peer(1, ping=0.4)
    pace = Pace(0.3)
    for _ in range(8):
        rig.put(frame(1, 2))
        got = peer.payloads()
        pace.step()
        assert got == [frame(1, 2)]
        time.sleep(0.1)
    assert peer.payloads() == [PING]


@pytest.mark.measures
def test_a_ping_from_the_peer_is_swallowed_and_keeps_it_alive(rig: Rig) -> None:
    peer = rig.peer(1, ping_restart=0.6)
    pace = Pace(0.4)
    for _ in range(10):
        peer.send(PING)
        pace.step()
        time.sleep(0.1)
    events = rig.events(PeerExpired)
    pace.step()
    at_most(len(events), 0, "a peer that was heard", "times expired")
    assert rig.event(PeerExpired) == PeerExpired(peer.handle)
    assert rig.tap_is_quiet(0.01)
    assert sum(rig.snapshot().peers[0].counters.frames.values()) == 0


def test_only_authentic_packets_keep_a_peer_alive_and_expiry_is_told_once(rig: Rig) -> None:
    peer = rig.peer(1, ping_restart=0.4)
    packet = peer.seal(PING)
    peer.send_raw(packet)
    deadline = time.monotonic() + 5 * PATIENCE
    while not rig.events(PeerExpired) and time.monotonic() < deadline:
        peer.send_raw(packet)
        peer.send_raw(packet[:-1] + b"x")
        time.sleep(0.02)
    time.sleep(0.4)
    assert rig.events(PeerExpired) == [PeerExpired(peer.handle)]


def test_occ_messages_go_up_and_never_to_the_tap(rig: Rig) -> None:
    peer = rig.peer(1)
    peer.send(OCC_EXIT)
    assert rig.event(OccReceived) == OccReceived(peer.handle, OCC_EXIT)
    assert rig.tap_is_quiet()


def test_payloads_of_the_control_plane_are_sealed(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.plane.send_payload(peer.handle, OCC_EXIT)
    assert peer.payloads() == [OCC_EXIT]
    bare = rig.peer(2, with_key=False)
    rig.plane.send_payload(bare.handle, OCC_EXIT)
    assert bare.is_quiet()


def test_a_peer_that_moved_is_followed_at_once(rig: Rig) -> None:
    peer = rig.peer(1)
    peer.send(frame(2, 1))
    rig.frames()
    before = peer.move()
    peer.send(frame(2, 1, b"from elsewhere"))
    assert rig.frames() == [frame(2, 1, b"from elsewhere")]
    assert rig.event(PeerFloated) == PeerFloated(peer.handle, peer.endpoint, before)
    rig.put(frame(1, 2))
    assert peer.payloads() == [frame(1, 2)]
    assert rig.snapshot().peers[0].endpoint == peer.endpoint


@pytest.mark.parametrize("how", ["replayed", "forged"])
def test_a_packet_that_is_not_fresh_and_authentic_moves_nobody(rig: Rig, how: str) -> None:
    peer = rig.peer(1)
    packet = peer.seal(frame(2, 1))
    if how == "replayed":
        peer.send_raw(packet)
        rig.frames()
    else:
        packet = packet[:-1] + bytes([packet[-1] ^ 1])
    thief = HandPeer(1, Cipher.AES_256_GCM)
    thief.target = peer.target
    thief.send_raw(packet)
    rig.dropped("receive", "replay" if how == "replayed" else "tag_mismatch")
    rig.put(frame(1, 2))
    assert peer.payloads() == [frame(1, 2)]
    assert rig.events(PeerFloated) == []
    thief.close()


def test_the_endpoint_of_a_peer_of_another_name_is_not_taken(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    second.socket.sendto(first.seal(frame(5, 1)), first.target)
    rig.dropped("receive", "float_refused")
    assert rig.events(PeerFloated) == []
    rig.put(frame(1, 9))
    assert first.payloads() == second.payloads() == [frame(1, 9)]


def test_a_peer_of_the_same_name_takes_an_endpoint_over(rig: Rig) -> None:
    old = rig.peer(1, name="alice")
    new = rig.peer(2, name="alice")
    before = new.endpoint
    old.socket.sendto(new.seal(frame(5, 1)), new.target)
    assert rig.frames() == [frame(5, 1)]
    assert rig.event(PeerFloated) == PeerFloated(new.handle, old.endpoint, before)


def test_a_client_follows_its_server_whatever_the_peer_id(rig: Rig) -> None:
    server = rig.peer(1, takes_any_id=True)
    server.wire_id = 0x123456  # type: ignore[assignment]
    server.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)]
    server.move()
    server.send(frame(2, 1, b"moved"))
    assert rig.frames() == [frame(2, 1, b"moved")]
    assert rig.event(PeerFloated).endpoint == server.endpoint
    rig.put(frame(1, 2))
    assert server.payloads() == [frame(1, 2)]


def test_control_datagrams_from_anybody_go_up_with_their_source(rig: Rig) -> None:
    stranger = HandPeer(8, Cipher.AES_256_GCM)
    stranger.target = ("127.0.0.1", rig.port)
    for datagram in (HARD_RESET, b"\xff", b"\x00" * 50):
        stranger.send_raw(datagram)
        assert rig.event(ControlReceived) == ControlReceived(datagram, stranger.endpoint)
    rig.plane.send_control(b"answer", stranger.endpoint)
    assert stranger.datagrams() == [b"answer"]
    stranger.close()


def test_the_event_descriptor_is_readable_exactly_while_events_wait(rig: Rig) -> None:
    peer = rig.peer(1)

    def readable(seconds: float) -> bool:
        return bool(select.select([rig.plane.event_fd()], [], [], seconds)[0])

    assert not readable(0)
    for _ in range(10):
        peer.send_raw(HARD_RESET)
    until(lambda: rig.snapshot().queues["control"][0] == 10, "ten datagrams")
    assert readable(0)
    assert len(rig.plane.poll_events(4)) == 4
    assert readable(0)
    assert len(rig.plane.poll_events(100)) == 6
    assert not readable(0)
    assert rig.plane.poll_events() == []


@pytest.mark.measures
def test_a_flood_of_control_datagrams_is_bounded_and_leaves_room_for_peers(rig: Rig) -> None:
    peer = rig.peer(1)
    sent = 0
    sources = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
    for number, source in enumerate(sources):
        # Every source is another host: rate limits are by host.
        source.bind((f"127.0.0.{number + 10}", 0))
    for source in sources:
        for _ in range(300):
            source.sendto(HARD_RESET, ("127.0.0.1", rig.port))
            sent += 1
        until(lambda count=sent: _arrived(rig) >= count, "all of the flood to be judged")  # type: ignore[misc]
    assert rig.drops("receive", "source_rate") > 0
    assert rig.drops("receive", "control_queue_full") > 0
    depth, capacity = rig.snapshot().queues["control"]
    assert capacity == CONTROL_QUEUE_DATAGRAMS + STRANGER_QUEUE_DATAGRAMS
    assert depth < capacity
    peer.send_raw(b"\x20from a peer")
    until(lambda: rig.snapshot().queues["control"][0] == depth + 1, "the peer's datagram")
    peer.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)], "data does not suffer"
    for source in sources:
        source.close()


def _arrived(rig: Rig) -> int:
    return (
        rig.snapshot().queues["control"][0]
        + rig.drops("receive", "source_rate")
        + rig.drops("receive", "control_queue_full")
    )


@pytest.mark.measures
def test_one_source_alone_is_cut_off_before_the_queue_is_full(rig: Rig) -> None:
    stranger = HandPeer(8, Cipher.AES_256_GCM)
    stranger.target = ("127.0.0.1", rig.port)
    for _ in range(1000):
        stranger.send_raw(HARD_RESET)
    until(lambda: _arrived(rig) >= 1000, "all datagrams to be judged")
    assert rig.drops("receive", "control_queue_full") == 0
    assert rig.drops("receive", "source_rate") >= 500
    stranger.close()


def test_a_peer_that_is_not_there_any_more_disturbs_nobody(rig: Rig) -> None:
    """Its host answers with ICMP port unreachable."""
    gone, there = rig.peer(1), rig.peer(2)
    gone.socket.close()
    gone.socket = gone._bound()
    for number in range(20):
        rig.put(frame(1, 2, bytes([number])))
        rig.plane.send_control(b"\x20hello", Endpoint("127.0.0.1", 1))
    assert there.payloads(20) == [frame(1, 2, bytes([number])) for number in range(20)]


def test_a_client_needs_no_address_to_bind_to(build: str, rig: Rig) -> None:
    far = HandPeer(1, Cipher.AES_256_GCM)
    near, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    settings = rig.settings.__class__(
        "client",
        rig.settings.tap.__class__((near.fileno(),), "t", rig.settings.tap.mac, rig.settings.tap.mtu),
        None,
    )
    plane = create_dataplane(build, settings)  # type: ignore[arg-type]
    plane.start()
    try:
        assert plane.local_endpoint is None
        plane.send_control(HARD_RESET, far.endpoint)
        assert far.datagrams() == [HARD_RESET]
        local = plane.local_endpoint
        assert local is not None
        far.socket.sendto(b"\x28answer", ("127.0.0.1", local.port))
        until(lambda: plane.snapshot().queues["control"][0] == 1, "the answer")
        assert plane.poll_events() == [ControlReceived(b"\x28answer", far.endpoint)]
        plane.send_control(b"over IPv6", Endpoint("::1", 9))
        assert plane.local_endpoint is not None
    finally:
        plane.stop()
        plane.stop()
        for sock in (near, tap, far.socket):
            sock.close()


def test_an_address_that_cannot_be_bound_is_refused_with_its_name(build: str, rig: Rig) -> None:
    settings = rig.settings.__class__("taken", rig.settings.tap, Endpoint("127.0.0.1", rig.port))
    plane = create_dataplane(build, settings)  # type: ignore[arg-type]
    with pytest.raises(DataplaneError, match=f"127.0.0.1:{rig.port}") as caught:
        plane.start()
    assert caught.value.code == "bind_failed"
    plane.stop()


def test_stopping_closes_every_descriptor_of_its_own(build: str, rig: Rig) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        plane = create_dataplane(
            build, rig.settings.__class__("again", rig.settings.tap, Endpoint("127.0.0.1", 0))
        )
        plane.start()
        plane.stop()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.measures
def test_the_control_plane_is_never_kept_waiting(rig: Rig) -> None:
    """Under a steady load of frames, no call takes longer than a few batches."""
    peer = rig.peer(1)
    packets = [peer.seal(frame(2, 1, bytes(1000))) for _ in range(3000)]
    slowest = 0.0
    for number, packet in enumerate(packets):
        peer.send_raw(packet)
        if number % 10 == 0:
            started = time.monotonic()
            rig.plane.install_key(peer.handle, peer.key(Role.SERVER, 1))
            rig.plane.snapshot()
            slowest = max(slowest, time.monotonic() - started)
            while not rig.tap_is_quiet(0):
                rig.writes()
    at_most(slowest, 0.5, "the slowest call")
    rig.plane.remove_key(PeerHandle(1), KeyId(1))
