"""Contract: one frame, one peer, one station must not hurt the others."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    EVENT_QUEUE_EVENTS,
    OCC_BURST,
    OCC_OCTETS,
    OCC_PER_SECOND,
    KeyNearLimit,
    OccReceived,
    PeerExpired,
    PeerFloated,
    PeerSettings,
    TapFailed,
)
from bridged.dataplane.portable.headers.vnet import GSO_TCPV4, VnetHeader, serialize_vnet
from bridged.protocol.packets.occ import OCC_EXIT, OCC_MAGIC, PING
from bridged.protocol.role import Role
from bridged.units import KeyId, Octets, PeerHandle, Seconds, WirePeerId
from tests.contract.dataplane_rig import BROADCAST, HandPeer, Rig, frame, station, until

Make = Callable[..., Rig]

HEADER_AND_TAGS = 14 + 8
MAGICS = {"ping": PING, "occ": OCC_MAGIC}
NO_STATIONS = {
    "multicast": (b"\x01\0\x5e\0\0\1", "source_multicast"),
    "broadcast": (BROADCAST, "source_multicast"),
    "zero": (bytes(6), "reserved_address"),
}


# --- frames that peers would take for a ping or an OCC message


@pytest.mark.parametrize("magic", MAGICS.values(), ids=MAGICS)
@pytest.mark.parametrize("vnet", [0, 10])
def test_a_lan_frame_that_begins_with_a_magic_reaches_no_peer_and_is_counted(
    make_rig: Make, vnet: int, magic: bytes
) -> None:
    rig = make_rig(vnet=vnet)
    first, second = rig.peer(1), rig.peer(2)
    harmless = magic[:12] + b"\x88\xb5" + bytes(46)
    rig.put(harmless)
    assert first.payloads() == second.payloads() == [harmless]
    forged = [magic, magic + b"\6", (magic + b"\6").ljust(60, b"\0"), magic + bytes(1400)]
    for item in forged:
        # Alone, and amid others with the same addresses.
        rig.put(item)
        rig.put(harmless, item, harmless)
    assert first.payloads(8) == second.payloads(8) == [harmless] * 8
    rig.dropped("transmit", "housekeeping_magic", 8)
    assert first.is_quiet()


@pytest.mark.parametrize("magic", MAGICS.values(), ids=MAGICS)
def test_no_segment_of_a_super_frame_begins_with_a_magic(make_rig: Make, magic: bytes) -> None:
    rig = make_rig(vnet=10, offloads=["csum", "tso4"])
    peer = rig.peer(1)
    header = VnetHeader(True, GSO_TCPV4, False, 54, 1000, 34, 16)
    rig.put(magic + bytes(5000), header=serialize_vnet(header))
    rig.dropped("transmit", "housekeeping_magic")
    # A virtual machine may have the checksum put anywhere, and so make a magic of what was none.
    for start in range(14):
        needs_checksum = VnetHeader(True, 0, False, 0, 0, start, 14 - start)
        rig.put(magic[:14] + bytes(46), header=serialize_vnet(needs_checksum))
    for payload in peer.payloads(14):
        assert not payload.startswith((PING, OCC_MAGIC))


def test_occ_never_reaches_the_lan_or_another_peer_whatever_was_sent_from_its_addresses(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    rig.put(frame(1, BROADCAST))
    first.payloads()
    second.payloads()
    harmless = OCC_MAGIC[:12] + b"\x88\xb5" + bytes(46)
    for number in range(6):
        first.send(harmless)
        assert rig.frames() == second.payloads() == [harmless]
        first.send(OCC_MAGIC + bytes([0, number]))
        assert rig.event(OccReceived).payload == OCC_MAGIC + bytes([0, number])
    assert rig.tap_is_quiet()
    assert second.is_quiet()


# --- frames that cannot be one


@pytest.mark.parametrize(("source", "reason"), NO_STATIONS.values(), ids=NO_STATIONS)
@pytest.mark.parametrize("destination", [BROADCAST, station(1), station(12), station(99)])
def test_a_frame_of_no_station_reaches_neither_lan_nor_peer_and_teaches_nothing(
    rig: Rig, source: bytes, reason: str, destination: bytes
) -> None:
    first, second = rig.peer(1), rig.peer(2)
    second.send(frame(12, BROADCAST))
    rig.frames()
    first.payloads()
    first.send(frame(source, destination))
    rig.dropped("receive", reason)
    rig.put(frame(source, destination))
    rig.dropped("transmit", reason)
    assert rig.snapshot().peers[0].counters.drops["receive", reason] == 1
    assert [entry.station.mac for entry in rig.plane.fdb()] == [station(12)]
    assert rig.tap_is_quiet(0.05)
    assert second.is_quiet(0.05)


@pytest.mark.parametrize("vnet", [0, 10])
def test_a_frame_longer_than_the_tap_carries_reaches_neither_lan_nor_peer_and_teaches_nothing(
    make_rig: Make, vnet: int
) -> None:
    rig = make_rig(vnet=vnet, mtu=1400)
    first, second = rig.peer(1), rig.peer(2)
    largest = frame(11, BROADCAST).ljust(1400 + HEADER_AND_TAGS, b"\1")
    shifted = frame(13, BROADCAST).ljust(1400 + HEADER_AND_TAGS + 1, b"\1")
    first.send(shifted, largest, shifted)
    first.send_batch([first.seal(shifted), first.seal(largest)])
    assert rig.frames(2) == second.payloads(2) == [largest] * 2
    rig.dropped("receive", "long_frame", 3)
    assert rig.snapshot().peers[0].counters.drops["receive", "long_frame"] == 3
    assert [entry.station.mac for entry in rig.plane.fdb()] == [station(11)]
    assert second.is_quiet(0.05)
    rig.plane.attach_tap(replace(rig.settings.tap, mtu=Octets(1401)))
    first.send(shifted)
    assert rig.frames() == second.payloads() == [shifted]


def test_a_short_frame_takes_none_of_its_batch_along(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.put(frame(1, 2), frame(1, 2)[:13], frame(1, 2)[:12], frame(1, 2))
    assert peer.payloads(2) == [frame(1, 2)] * 2
    rig.dropped("transmit", "short_frame", 2)


# --- events


def test_occ_messages_are_capped_in_size_and_rate_for_each_peer(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    first.send(*(OCC_MAGIC + bytes([0]) for _ in range(200)))
    first.send((OCC_MAGIC + b"\1").ljust(OCC_OCTETS + 1, b"x"), (OCC_MAGIC + b"\1").ljust(60_000, b"x"))
    rig.dropped("receive", "occ_length", 2)
    refused = rig.drops("receive", "occ_rate")
    # It took a moment; in each second there may be a few more.
    assert 200 - OCC_BURST - 5 * OCC_PER_SECOND <= refused <= 200 - OCC_BURST
    assert rig.snapshot().peers[0].counters.drops["receive", "occ_rate"] == refused
    longest = (OCC_MAGIC + b"\1").ljust(OCC_OCTETS, b"x")
    second.send(longest)
    until(lambda: second.handle in [event.handle for event in rig.events(OccReceived)], "the other's message")
    heard = rig.events(OccReceived)
    assert OccReceived(second.handle, longest) in heard
    assert len([event for event in heard if event.handle == first.handle]) <= 200 - refused
    first.send(frame(11, 1))
    assert rig.frames() == [frame(11, 1)], "its frames go on"


def test_state_is_heard_whatever_peers_do_while_nobody_reads_events(make_rig: Make) -> None:
    rig = make_rig(renegotiate_packets=300, forward_between_peers=False)
    floods = [rig.peer(number) for number in range(1, 5)]
    silent = rig.peer(9, ping_restart=0.3)
    for turn in range(100):
        for peer in floods:
            peer.send(OCC_EXIT, frame(77, 1))
        if turn % 10 == 0:
            floods[0].move()
    floods[1].send(*(frame(20, 1) for _ in range(150)))

    def heard() -> list[int]:
        return [peer.counters.wire_datagrams["receive"] for peer in rig.snapshot().peers]

    until(lambda: heard() == [200, 350, 200, 200, 0], "all packets")
    rig.tap.close()
    until(lambda: rig.events(PeerExpired), "the expiry")
    until(lambda: rig.events(TapFailed), "the end of the TAP")
    assert rig.events(PeerExpired) == [PeerExpired(silent.handle)]
    assert rig.events(KeyNearLimit) == [KeyNearLimit(floods[1].handle, KeyId(0), "packets")]
    assert len(rig.events(TapFailed)) == 1
    assert len(rig.seen) <= EVENT_QUEUE_EVENTS
    assert len(rig.events(PeerFloated)) == 1


def test_a_peer_that_moves_about_is_told_once_with_where_it_is(rig: Rig) -> None:
    peer = rig.peer(1)
    start = peer.endpoint
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        for number in range(301):
            (other if number % 2 == 0 else peer.socket).sendto(peer.seal(PING), peer.target)
        until(lambda: rig.snapshot().peers[0].counters.wire_datagrams["receive"] == 301, "all packets")
        latest = Endpoint(*other.getsockname())
        assert rig.events(PeerFloated) == [PeerFloated(peer.handle, latest, start)]
        assert rig.snapshot().peers[0].endpoint == latest


def test_nothing_is_told_of_a_peer_that_was_removed(rig: Rig) -> None:
    peer = rig.peer(1, ping_restart=0.1)
    until(lambda: rig.snapshot().queues["events"][0] == 1, "the expiry")
    rig.plane.remove_peer(peer.handle)
    assert rig.plane.poll_events() == []


# --- the forwarding database


def invented(number: int) -> bytes:
    return b"\x02\x77" + number.to_bytes(4, "big")


def test_a_lan_station_with_many_addresses_does_not_keep_peers_stations_from_being_learned(
    make_rig: Make,
) -> None:
    rig = make_rig(fdb_capacity=40)
    first, second = rig.peer(1), rig.peer(2)
    rig.put(*(frame(invented(number), BROADCAST) for number in range(200)))
    first.payloads(200)
    second.payloads(200)
    assert rig.snapshot().fdb_entries == 20
    first.send(frame(11, invented(0)))
    assert rig.frames() == [frame(11, invented(0))]
    assert rig.learned(11) == first.handle
    rig.put(frame(invented(199), 11))
    assert first.payloads() == [frame(invented(199), 11)]
    assert second.is_quiet(0.05)


def test_a_peer_with_many_addresses_does_not_keep_others_from_being_learned(make_rig: Make) -> None:
    rig = make_rig(fdb_capacity=40, addresses_per_peer=1000)
    first, second = rig.peer(1), rig.peer(2)
    frames = [frame(invented(number), BROADCAST) for number in range(200)]
    first.send(*frames)
    assert rig.frames(200) == second.payloads(200) == frames, "what is not learned goes on"
    second.send(frame(12, invented(0)))
    assert first.payloads() == [frame(12, invented(0))]
    assert rig.learned(12) == second.handle
    rig.put(frame(1, 12))
    assert second.payloads() == [frame(1, 12)]
    assert rig.learned(1) is None


def test_a_full_fdb_floods_and_forwards_for_those_it_has_no_room_for(make_rig: Make) -> None:
    rig = make_rig(fdb_capacity=16)
    first, second = rig.peer(1), rig.peer(2)
    first.send(*(frame(invented(number), station(99)) for number in range(8)))
    rig.put(*(frame(invented(number), BROADCAST) for number in range(8, 16)))
    rig.frames(8)
    first.payloads(8)
    second.payloads(16)
    assert rig.snapshot().fdb_entries == rig.snapshot().fdb_capacity == 16
    for _ in range(3):
        second.send(frame(12, invented(0)))
        assert first.payloads() == [frame(12, invented(0))], "to whom is known"
        rig.put(frame(1, 12))
        assert first.payloads() == second.payloads() == [frame(1, 12)], "to whom is not: to all"
    assert rig.tap_is_quiet(0.05)
    assert rig.snapshot().drops == {}
    assert rig.snapshot().counts["fdb_changes"]["refused"] >= 2


# --- keys


def test_what_anybody_can_send_counts_towards_no_renegotiation(make_rig: Make) -> None:
    rig = make_rig(renegotiate_packets=100, renegotiate_bytes=20_000)
    peer = rig.peer(1)
    good = peer.seal(frame(2, 1))
    forged = good[:-1] + bytes([good[-1] ^ 1])
    peer.send_raw(good)
    for _ in range(1500):
        peer.send_raw(forged)
        peer.send_raw(good)
        if rig.drops("receive", "tag_mismatch") % 100 == 50:
            until(lambda: not rig.events(KeyNearLimit), "nothing")
    rig.dropped("receive", "tag_mismatch", 1500)
    rig.dropped("receive", "replay", 1500)
    assert rig.events(KeyNearLimit) == []
    counters = rig.snapshot().peers[0].counters
    assert (counters.wire_datagrams["receive"], counters.wire_bytes["receive"]) == (1, len(good))
    peer.send(*(frame(2, 1) for _ in range(99)))
    assert rig.event(KeyNearLimit) == KeyNearLimit(peer.handle, KeyId(0), "packets")


# --- what many peers cost


def crowd(rig: Rig, count: int, ping_restart: float = 1000.0) -> None:
    """Peers that say nothing."""
    for number in range(100, 100 + count):
        endpoint = Endpoint(f"10.0.{number // 250}.{number % 250}", 9)
        rig.plane.add_peer(
            PeerSettings(
                PeerHandle(number),
                f"silent-{number}",
                endpoint,
                WirePeerId(number),
                WirePeerId(number),
                Seconds(1000.0),
                Seconds(ping_restart),
            )
        )


def cost(rig: Rig, work: Callable[[], None]) -> float:
    """Processor seconds of all threads of the data plane."""
    before = sum(rig.snapshot().thread_cpu.values())
    work()
    return sum(rig.snapshot().thread_cpu.values()) - before


def float_cost(rig: Rig, peer: HandPeer, other: socket.socket, floats: int = 600) -> float:
    heard = rig.snapshot().peers[0].counters.wire_datagrams["receive"]
    packets = [peer.seal(PING) for _ in range(floats)]

    def work() -> None:
        for number, packet in enumerate(packets):
            (other if number % 2 == 0 else peer.socket).sendto(packet, peer.target)
        until(
            lambda: rig.snapshot().peers[0].counters.wire_datagrams["receive"] == heard + floats, "all floats"
        )

    return cost(rig, work)


def test_a_float_costs_the_same_with_a_thousand_peers_as_with_one(make_rig: Make) -> None:
    figures = []
    for count in (0, 1000):
        rig = make_rig()
        peer = rig.peer(1)
        crowd(rig, count)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            figures.append(min(float_cost(rig, peer, other) for _ in range(3)))
        rig.plane.stop()
    alone, crowded = figures
    assert crowded < 3 * alone + 0.01, figures


def test_a_wake_up_costs_the_same_with_a_thousand_peers_as_with_one(make_rig: Make) -> None:
    figures = []
    for count in (0, 1000):
        rig = make_rig()
        peer = rig.peer(1)
        crowd(rig, count)

        def wake(rig: Rig = rig, peer: HandPeer = peer) -> None:
            for _ in range(300):
                rig.plane.use_key(peer.handle, KeyId(0))
                os.sched_yield()

        cost(rig, wake)
        figures.append(min(cost(rig, wake) for _ in range(3)))
        rig.plane.stop()
    alone, crowded = figures
    assert crowded < 3 * alone + 0.01, figures


def test_each_of_a_thousand_peers_is_pinged_and_expires_at_its_time(make_rig: Make) -> None:
    rig = make_rig()
    crowd(rig, 1000)
    pinged = rig.peer(1, ping=0.2)
    expiring = [rig.peer(number, ping_restart=0.3) for number in (2, 3)]
    assert pinged.payloads(2) == [PING, PING]
    until(lambda: len(rig.events(PeerExpired)) == 2, "both expiries")
    assert {event.handle for event in rig.events(PeerExpired)} == {peer.handle for peer in expiring}
    rig.plane.install_key(pinged.handle, pinged.key(Role.SERVER))
    rig.plane.use_key(pinged.handle, KeyId(0))
    assert pinged.payloads() == [PING]
