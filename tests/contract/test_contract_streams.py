"""Contract: peers over TCP, beside those over UDP."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    STREAM_GROWN_OCTETS,
    STREAM_QUEUE_OCTETS,
    STREAM_STRANGER_OCTETS,
    ControlReceived,
    PeerFloated,
    PeerSettings,
    ResetAnswers,
    StreamClosed,
)
from bridged.errors import DataplaneError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.packet import Opcode
from bridged.protocol.packets.wrap.none import NoWrap
from bridged.protocol.role import Role
from bridged.units import KeyId, PeerHandle
from tests.contract.dataplane_rig import BROADCAST, HandPeer, Rig, frame, until
from tests.contract.stream_peer import StreamPeer, connected, framed, stream_peer
from tests.lab.waiting import PATIENCE

HARD_RESET = bytes([0x38]) + bytes(range(1, 9)) + bytes(5)
STRANGER_OCTETS = 2048
SO_BUF_LOCK = 72
SIZES = (60, 61, 400, 1400, 1514, 1600)


def sized(number: int, octets: int, source: int = 1, target: int = 2) -> bytes:
    return frame(source, target, bytes([number]) * (octets - 14))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("cipher", [Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305])
def test_frames_of_all_sizes_pass_both_ways(rig: Rig, cipher: Cipher, family: int) -> None:
    peer = stream_peer(rig, 1, cipher=cipher, family=family)
    out = [sized(number, octets) for number, octets in enumerate(SIZES)]
    rig.put(*out)
    assert peer.payloads(len(out)) == out
    into = [sized(number, octets, 2, 1) for number, octets in enumerate(SIZES)]
    peer.send(*into)
    assert rig.frames(len(into)) == into
    assert rig.snapshot().peers[0].endpoint == peer.endpoint


def test_many_packets_in_one_segment_and_one_in_many_arrive_in_order(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    frames = [sized(number, 60 + number % 7, 2, 1) for number in range(200)]
    octets = framed(*(peer.seal(item) for item in frames))
    peer.stream.sendall(octets[: len(octets) // 2])
    peer.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest = octets[len(octets) // 2 :]
    for at in range(60):
        peer.stream.sendall(rest[at : at + 1])
        if at % 20 == 0:
            time.sleep(0.005)  # so that some of them are read one by one
    peer.stream.sendall(rest[60:])
    assert rig.frames(200) == frames


def test_what_was_read_before_comes_first(rig: Rig) -> None:
    far, near = connected()
    hand = StreamPeer(1, Cipher.AES_256_GCM, far)
    rig.peers.append(hand)
    whole = framed(HARD_RESET, bytes([0x28]) + bytes(20))
    rig.plane.adopt_stream(near.fileno(), hand.endpoint, whole[:30])
    near.close()
    assert rig.event(ControlReceived) == ControlReceived(HARD_RESET, hand.endpoint)
    far.sendall(whole[30:])
    assert rig.event(ControlReceived) == ControlReceived(whole[18:], hand.endpoint)


def test_udp_and_tcp_share_one_switch(rig: Rig) -> None:
    tcp, udp, other = stream_peer(rig, 1), rig.peer(2), stream_peer(rig, 3)
    tcp.send(frame(1, BROADCAST))
    assert udp.payloads() == other.payloads() == rig.frames() == [frame(1, BROADCAST)]
    udp.send(frame(2, 1))
    assert tcp.payloads() == [frame(2, 1)]
    tcp.send(frame(1, 2))
    assert udp.payloads() == [frame(1, 2)]
    rig.put(frame(9, BROADCAST))
    assert udp.payloads() == other.payloads() == tcp.payloads() == [frame(9, BROADCAST)]


@pytest.mark.parametrize("ends", ["closed", "replaced"])
def test_the_end_of_a_stream_that_was_closed_is_not_told(rig: Rig, ends: str) -> None:
    """Also where it ended by itself, and the event waits: another stream may be at its endpoint by now."""
    for waits in (True, False):
        far, near = connected()
        hand = StreamPeer(1, Cipher.AES_256_GCM, far)
        rig.peers.append(hand)
        rig.plane.adopt_stream(near.fileno(), hand.endpoint, b"")
        near.close()
        if waits:
            far.shutdown(socket.SHUT_WR)
            until(lambda: select.select([rig.plane.event_fd()], [], [], 0)[0], "the event")
        another, replacement = connected()
        if ends == "closed":
            rig.plane.close_stream(hand.endpoint)
        else:
            rig.plane.adopt_stream(replacement.fileno(), hand.endpoint, b"")
        replacement.close()
        assert hand.is_ended()
        assert rig.events(StreamClosed) == []
        another.close()
        if ends == "replaced":
            assert rig.event(StreamClosed).endpoint == hand.endpoint


def fill(rig: Rig, target: int, source: int = 9) -> int:
    """Send frames to a station until some are dropped; how many were sent."""
    sent = 0
    while not rig.drops("transmit", "tcp_send_full"):
        for _ in range(50):
            try:
                rig.put(sized(sent % 256, 1400, source, target))
                sent += 1
            except BlockingIOError:
                time.sleep(0.001)
        assert sent < 200_000
    # Full as it may be where the plane stood still: what follows must find room.
    assert select.select([], [rig.tap], [], 5 * PATIENCE)[1]
    return sent


def accepted(rig: Rig, sent: int) -> int:
    """How many of so many frames have become packets, when all have been looked at."""

    def counted() -> int:
        return rig.snapshot().peers[0].counters.wire_datagrams["transmit"]

    until(lambda: counted() + rig.drops("transmit", "tcp_send_full") == sent, f"{sent} frames counted")
    return counted()


def test_a_peer_that_does_not_read_stalls_nobody_else(rig: Rig) -> None:
    stalled, tcp, udp = stream_peer(rig, 1), stream_peer(rig, 2), rig.peer(3)
    for peer, number in ((stalled, 1), (tcp, 2), (udp, 3)):
        peer.send(frame(number, BROADCAST))
        rig.frames()
    others: list[HandPeer] = [stalled, tcp, udp]
    for peer in others:
        peer.payloads(2)
    fill(rig, 1)
    for number in range(200):
        rig.put(sized(number, 200, 9, 2), sized(number, 200, 9, 3))
    assert tcp.payloads(200) == [sized(number, 200, 9, 2) for number in range(200)]
    assert udp.payloads(200) == [sized(number, 200, 9, 3) for number in range(200)]
    dropped = rig.snapshot().peers[0].counters.drops
    assert dropped["transmit", "tcp_send_full"] > 0
    assert not rig.events(StreamClosed)


def test_frames_that_are_dropped_leave_no_gap_in_the_packet_ids(rig: Rig) -> None:
    """OpenVPN takes only the next id over TCP."""
    peer = stream_peer(rig, 1)
    sent = fill(rig, 1)
    packets = peer.datagrams(accepted(rig, sent) // 2)
    rig.put(*(sized(number, 1400, 9, 1) for number in range(20)))
    packets += peer.datagrams(accepted(rig, sent + 20) - len(packets))
    ids = [peer.open(packet).packet_id for packet in packets]
    assert ids == list(range(1, len(ids) + 1))


def test_a_packet_longer_than_its_length_can_say_is_dropped_and_leaves_no_gap(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(mtu=65_521)
    peer = stream_peer(rig, 1)
    rig.put(sized(1, 100))
    (packet,) = peer.datagrams()
    longest = 65_535 - (len(packet) - 100)
    out = [sized(2, longest), sized(3, longest + 1), sized(4, 65_535), sized(5, 100)]
    for item in out:
        rig.put(item)
    packets = peer.datagrams(2)
    assert [len(found) for found in packets] == [65_535, len(packet)]
    opened = [peer.open(found) for found in packets]
    assert [found.payload for found in opened] == [out[0], out[3]]
    assert [found.packet_id for found in opened] == [2, 3]
    assert rig.snapshot().peers[0].counters.drops["transmit", "tcp_too_long"] == 2


def test_what_waits_for_a_stalled_peer_is_bounded(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    fill(rig, 1)
    counters = rig.snapshot().peers[0].counters
    in_kernel = 8 << 20
    assert counters.wire_bytes["transmit"] < STREAM_QUEUE_OCTETS + in_kernel


def test_packet_ids_must_rise_and_may_jump(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    for packet_id in (5, 6, 9):
        peer.send_raw(peer.seal(frame(2, packet_id), packet_id=packet_id))
    assert rig.frames(3) == [frame(2, 5), frame(2, 6), frame(2, 9)]
    peer.send_raw(peer.seal(frame(2, 8), packet_id=8))
    rig.dropped("receive", "replay_too_old")
    peer.send_raw(peer.seal(frame(2, 9), packet_id=9))
    rig.dropped("receive", "replay")


def test_no_peer_moves_between_a_stream_and_anything_else(rig: Rig) -> None:
    tcp, udp, other = stream_peer(rig, 1), rig.peer(2), stream_peer(rig, 3)
    udp.socket.sendto(tcp.seal(frame(2, 1)), udp.target)
    rig.dropped("receive", "float_refused")
    tcp.stream.sendall(framed(udp.seal(frame(3, 1))))
    rig.dropped("receive", "float_refused", 2)
    tcp.stream.sendall(framed(other.seal(frame(4, 1))))
    rig.dropped("receive", "float_refused", 3)
    assert rig.tap_is_quiet()
    assert not rig.events(PeerFloated)
    tcp.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)]


def test_control_packets_pass_both_ways(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    peer.send_raw(HARD_RESET)
    assert rig.event(ControlReceived) == ControlReceived(HARD_RESET, peer.endpoint)
    rig.plane.send_control(HARD_RESET, peer.endpoint)
    assert peer.datagrams() == [HARD_RESET]


def test_a_hard_reset_is_answered_in_its_stream(rig: Rig) -> None:
    rig.plane.answer_resets(ResetAnswers(NoWrap(), bytes(32), 60))
    far, near = connected()
    hand = StreamPeer(1, Cipher.AES_256_GCM, far)
    rig.peers.append(hand)
    rig.plane.adopt_stream(near.fileno(), hand.endpoint, framed(HARD_RESET))
    near.close()
    (answer,) = hand.datagrams()
    assert answer[0] >> 3 == Opcode.HARD_RESET_SERVER_V2
    assert HARD_RESET[1:9] in answer[9:]


def reset(stream: socket.socket) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (socket.socket.close, "closed"),
        (lambda stream: stream.shutdown(socket.SHUT_WR), "closed"),
        (reset, "reset"),
        (lambda stream: stream.sendall(bytes(2)), "bad_framing"),
    ],
)
def test_the_end_of_a_stream_is_reported_and_its_peer_gets_nothing_more(
    rig: Rig, end: Callable[[socket.socket], None], reason: str
) -> None:
    peer, endpoint = stream_peer(rig, 1), None
    endpoint = peer.endpoint
    peer.send(frame(2, 1))
    rig.frames()
    end(peer.stream)
    assert rig.event(StreamClosed) == StreamClosed(endpoint, reason)  # type: ignore[arg-type]
    rig.put(frame(9, 2))
    until(
        lambda: rig.drops("transmit", "unreachable") + rig.drops("transmit", "tcp_send_full"),
        "a dropped frame",
    )
    rig.plane.send_control(HARD_RESET, endpoint)
    assert not rig.events(StreamClosed)
    rig.plane.remove_peer(peer.handle)
    with pytest.raises(DataplaneError) as caught:
        rig.plane.add_peer(PeerSettings(PeerHandle(8), "site-8", endpoint, None, None))
    assert caught.value.code == "bind_failed"


def test_what_came_before_the_end_is_forwarded(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    frames = [sized(number, 300, 2, 1) for number in range(50)]
    peer.send(*frames)
    peer.stream.close()
    assert rig.frames(50) == frames
    rig.event(StreamClosed)


def test_closing_a_stream_sends_what_waits_first_and_is_no_event(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    sent = fill(rig, 1)
    taken = accepted(rig, sent)
    rig.plane.remove_peer(peer.handle)
    rig.plane.send_control(HARD_RESET, peer.endpoint)
    rig.plane.close_stream(peer.endpoint)
    packets = peer.datagrams(taken + 1)
    assert packets[-1] == HARD_RESET
    assert peer.is_ended()
    peer.stream.close()
    assert not rig.events(StreamClosed)
    rig.plane.close_stream(peer.endpoint if peer.stream.fileno() >= 0 else Endpoint("192.0.2.1", 1, "tcp"))


def test_another_stream_of_the_same_endpoint_replaces_the_first(rig: Rig) -> None:
    first = stream_peer(rig, 1)
    far, near = connected()
    rig.plane.adopt_stream(near.fileno(), first.endpoint, b"")
    near.close()
    assert first.is_ended()
    assert not rig.events(StreamClosed)
    far.sendall(framed(HARD_RESET))
    assert rig.event(ControlReceived) == ControlReceived(HARD_RESET, first.endpoint)
    far.close()
    rig.event(StreamClosed)


def test_what_is_no_stream_is_refused(rig: Rig) -> None:
    where = Endpoint("192.0.2.1", 1, "tcp")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, open(os.devnull, "rb") as nothing:
        for descriptor in (udp.fileno(), nothing.fileno(), -1):
            with pytest.raises(DataplaneError) as caught:
                rig.plane.adopt_stream(descriptor, where, b"")
            assert caught.value.code == "system"


def test_a_far_end_that_takes_no_control_packets_is_cut_off(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    packet = bytes([0x20]) + bytes(1199)
    for _ in range(20_000):
        rig.plane.send_control(packet, peer.endpoint)
        if rig.events(StreamClosed):
            break
    assert rig.event(StreamClosed) == StreamClosed(peer.endpoint, "overflow")


def test_streams_are_left_unread_while_the_wan_is_held(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    rig.plane.hold(lan=False, wan=True)
    peer.send(frame(2, 1))
    assert rig.tap_is_quiet()
    rig.plane.hold(lan=False, wan=False)
    assert rig.frames() == [frame(2, 1)]


def test_a_renegotiated_key_starts_its_ids_again(rig: Rig) -> None:
    peer = stream_peer(rig, 1)
    peer.send(*(frame(2, 1) for _ in range(5)))
    rig.frames(5)
    rig.plane.expect_key(peer.handle, KeyId(1))
    peer.key_id, peer.next_id = KeyId(1), 1
    peer.send(frame(2, 3), frame(2, 4))
    peer.send_raw(peer.seal(frame(2, 5), key_id=0, packet_id=6))
    assert rig.frames() == [frame(2, 5)]
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER, 1))
    rig.plane.use_key(peer.handle, KeyId(1))
    assert rig.frames(2) == [frame(2, 3), frame(2, 4)]
    rig.put(frame(9, 2))
    (packet,) = peer.datagrams()
    assert (packet[0] & 7, peer.open(packet).packet_id) == (1, 1)


def test_no_thread_spins_with_idle_or_stalled_streams(rig: Rig) -> None:
    stream_peer(rig, 2)
    stream_peer(rig, 1)
    fill(rig, 1)
    until(lambda: rig.snapshot().drops, "drops")
    before = sum(rig.snapshot().thread_cpu.values())
    assert rig.tap_is_quiet(0.4)
    assert sum(rig.snapshot().thread_cpu.values()) - before < 0.2


def stranger(rig: Rig, number: int) -> tuple[StreamPeer, socket.socket]:
    """A connection that nobody is known of yet, and our end of it, whose buffers are small."""
    far, near = connected()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    hand = StreamPeer(number, Cipher.AES_256_GCM, far)
    rig.peers.append(hand)
    rig.plane.adopt_stream(near.fileno(), hand.endpoint, b"", STRANGER_OCTETS)
    return hand, near


def test_a_stranger_that_begins_a_long_packet_is_cut_off(rig: Rig) -> None:
    hand, near = stranger(rig, 1)
    near.close()
    hand.stream.sendall(framed(HARD_RESET + bytes(STRANGER_OCTETS - len(HARD_RESET))))
    assert len(rig.event(ControlReceived).datagram) == STRANGER_OCTETS
    hand.stream.sendall((STRANGER_OCTETS + 1).to_bytes(2, "big") + bytes(10))
    assert rig.event(StreamClosed) == StreamClosed(hand.endpoint, "bad_framing")
    assert hand.is_ended()


def test_a_stranger_that_reads_no_answers_is_cut_off_early(rig: Rig) -> None:
    hand, near = stranger(rig, 1)
    near.close()
    hand.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    packet = bytes([0x20]) + bytes(1199)
    for _ in range(1 + STREAM_QUEUE_OCTETS // len(packet)):
        rig.plane.send_control(packet, hand.endpoint)
    assert rig.event(StreamClosed) == StreamClosed(hand.endpoint, "overflow")


def test_answers_that_a_slow_stranger_may_have_waiting_all_arrive(rig: Rig) -> None:
    hand, near = stranger(rig, 1)
    near.close()
    packet = bytes([0x20]) + bytes(1199)
    count = STREAM_STRANGER_OCTETS // len(packet)
    for _ in range(count):
        rig.plane.send_control(packet, hand.endpoint)
    assert hand.datagrams(count) == [packet] * count
    assert not rig.events(StreamClosed)


def test_a_stranger_that_becomes_a_peer_sends_long_packets_and_gets_larger_buffers(rig: Rig) -> None:
    hand, near = stranger(rig, 2)
    with near:
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * 8192
        rig.plane.add_peer(PeerSettings(hand.handle, "site-2", hand.endpoint, hand.wire_id, hand.wire_id))
        rig.plane.install_key(hand.handle, hand.key(Role.SERVER))
        rig.plane.use_key(hand.handle, KeyId(0))
        for name in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            assert near.getsockopt(socket.SOL_SOCKET, name) >= STREAM_GROWN_OCTETS
        assert near.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) == 0, "the kernel may not make them larger"
    hand.stream.sendall((3000).to_bytes(2, "big") + bytes([0x20]) + bytes(2999))
    into = [sized(number, octets, 2, 1) for number, octets in enumerate(SIZES)]
    hand.send(*into)
    assert rig.frames(len(into)) == into
    assert not rig.events(StreamClosed)
