"""Contract: a learning switch between the TAP and the peers."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bridged.dataplane.contract import Station, StationMoved
from bridged.units import PeerHandle, Seconds
from tests.contract.dataplane_rig import BROADCAST, HandPeer, Rig, frame, station, until
from tests.lab.bounds import Pace, at_most

Make = Callable[..., Rig]


def meet(rig: Rig, *peers: HandPeer, tap: int = 1) -> None:
    """Have everybody learned: station `tap` behind the TAP, station 10 + n behind peer n."""
    rig.put(frame(tap, BROADCAST))
    for peer in peers:
        assert peer.payloads() == [frame(tap, BROADCAST)]
    for peer in peers:
        peer.send(frame(10 + peer.number, tap))
        assert rig.frames() == [frame(10 + peer.number, tap)]


def quiet(*peers: HandPeer) -> bool:
    return all(peer.is_quiet(0.08) for peer in peers)


def test_a_frame_to_a_known_station_goes_to_its_peer_only(rig: Rig) -> None:
    first, second, third = rig.peer(1), rig.peer(2), rig.peer(3)
    meet(rig, first, second, third)
    rig.put(frame(1, 12))
    assert second.payloads() == [frame(1, 12)]
    assert quiet(first, third)


def test_an_unknown_unicast_a_multicast_and_a_broadcast_are_flooded(rig: Rig) -> None:
    peers = [rig.peer(1), rig.peer(2)]
    meet(rig, *peers)
    for destination in (station(99), bytes.fromhex("333300000001"), BROADCAST):
        rig.put(frame(1, destination))
        assert [peer.payloads() for peer in peers] == [[frame(1, destination)]] * 2


def test_a_flood_from_a_peer_reaches_the_tap_and_the_others_but_not_itself(rig: Rig) -> None:
    first, second, third = rig.peer(1), rig.peer(2), rig.peer(3)
    meet(rig, first, second, third)
    for destination in (station(99), BROADCAST):
        first.send(frame(11, destination))
        assert rig.frames() == [frame(11, destination)]
        assert second.payloads() == third.payloads() == [frame(11, destination)]
        assert quiet(first)


def test_peers_reach_each_other_without_the_tap(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    meet(rig, first, second)
    first.send(frame(11, 12))
    assert second.payloads() == [frame(11, 12)]
    assert rig.tap_is_quiet()


def test_isolated_peers_reach_the_tap_only(make_rig: Make) -> None:
    rig = make_rig(forward_between_peers=False)
    first, second = rig.peer(1), rig.peer(2)
    meet(rig, first, second)
    for destination in (station(12), station(99), BROADCAST):
        first.send(frame(11, destination))
        assert rig.frames() == [frame(11, destination)]
    assert quiet(first, second)


def test_a_frame_goes_nowhere_when_its_station_is_on_the_side_it_came_from(rig: Rig) -> None:
    peer = rig.peer(1)
    meet(rig, peer)
    rig.put(frame(2, BROADCAST))
    peer.payloads()
    rig.put(frame(1, 2))
    peer.send(frame(21, 1))
    rig.frames()
    peer.send(frame(21, 11))
    assert quiet(peer)
    assert rig.tap_is_quiet()


def test_stations_are_listed_with_port_and_age(rig: Rig) -> None:
    peer = rig.peer(1)
    meet(rig, peer)
    entries = {entry.station.mac: entry for entry in rig.plane.fdb()}
    assert entries[station(1)].handle is None
    assert entries[station(11)].handle == peer.handle
    assert all(0 <= entry.age < 5 for entry in entries.values())
    assert rig.snapshot().fdb_entries == 2
    assert rig.snapshot().peers[0].fdb_entries == 1
    assert rig.snapshot().counts["fdb_changes"]["learned"] == 2


@pytest.mark.measures
def test_an_aged_station_is_flooded_again_and_forgotten(make_rig: Make) -> None:
    rig = make_rig(ageing=Seconds(0.3))
    first, second = rig.peer(1), rig.peer(2)
    pace = Pace(0.3)
    meet(rig, first, second)
    rig.put(frame(1, 11))
    got = first.payloads()
    pace.step()
    assert got == [frame(1, 11)]
    assert quiet(second)
    time.sleep(0.4)
    rig.put(frame(1, 11))
    assert first.payloads() == second.payloads() == [frame(1, 11)]
    until(lambda: rig.snapshot().counts["fdb_changes"]["aged"] >= 2, "ageing", 4)


@pytest.mark.measures
def test_traffic_keeps_a_station_young(make_rig: Make) -> None:
    rig = make_rig(ageing=Seconds(0.4))
    first, second = rig.peer(1), rig.peer(2)
    meet(rig, first, second)
    pace = Pace(0.3)
    for _ in range(8):
        first.send(frame(11, 1))
        rig.put(frame(1, 11))
        rig.frames()
        got = first.payloads()
        pace.step()
        assert got == [frame(1, 11)]
        time.sleep(0.1)
    assert quiet(second)


def test_a_station_that_moves_to_another_peer_is_followed_at_once_and_told(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    meet(rig, first, second)
    second.send(frame(11, 1))
    rig.frames()
    rig.put(frame(1, 11))
    assert second.payloads() == [frame(1, 11)]
    assert quiet(first)
    assert rig.event(StationMoved) == StationMoved(Station(0, station(11)), first.handle, second.handle)
    assert rig.snapshot().counts["fdb_changes"]["moved"] == 1


def test_a_station_that_roams_from_the_tap_to_a_peer_is_followed_at_once(rig: Rig) -> None:
    peer = rig.peer(1)
    meet(rig, peer)
    peer.send(frame(1, BROADCAST))
    rig.frames()
    assert rig.learned(1) == peer.handle


@pytest.mark.measures
def test_an_own_frame_reflected_by_the_lan_moves_nothing(make_rig: Make) -> None:
    rig = make_rig(move_hold=Seconds(0.4))
    first, second = rig.peer(1), rig.peer(2)
    meet(rig, first, second)
    pace = Pace(0.4)
    for _ in range(5):
        first.send(frame(11, BROADCAST))
        reflected = rig.frames()
        second.payloads()
        rig.put(*reflected)
        pace.step()
    rig.dropped("transmit", "loop_guard", 5)
    assert rig.learned(11) == first.handle
    assert quiet(first, second)
    time.sleep(0.5)
    rig.put(frame(11, BROADCAST))
    assert first.payloads() == second.payloads() == [frame(11, BROADCAST)]
    assert rig.learned(11) is None, "later it may have moved there indeed"


@pytest.mark.measures
def test_moves_are_told_sparingly(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    meet(rig, first, second)
    for _ in range(30):
        for peer in (first, second):
            peer.send(frame(77, 1))
            rig.frames()
    assert rig.snapshot().counts["fdb_changes"]["moved"] == 59
    told = len(rig.events(StationMoved))
    assert told >= 1
    at_most(told, 20, "what is told of 59 moves", "events")


def test_a_multicast_source_is_dropped_and_never_learned(rig: Rig) -> None:
    peer = rig.peer(1)
    meet(rig, peer)
    multicast = bytes.fromhex("03005e000001")
    peer.send(frame(multicast, 1))
    rig.dropped("receive", "source_multicast")
    rig.put(frame(multicast, 11))
    rig.dropped("transmit", "source_multicast")
    peer.send(frame(bytes(6), 1))
    rig.dropped("receive", "reserved_address")
    assert len(rig.plane.fdb()) == 2
    assert quiet(peer)


def test_a_peer_with_too_many_addresses_gets_no_more(make_rig: Make) -> None:
    rig = make_rig(addresses_per_peer=5)
    first, second = rig.peer(1), rig.peer(2)
    for number in range(20, 25):
        first.send(frame(number, 99))
        rig.frames()
    first.send(frame(25, 99))
    rig.dropped("receive", "mac_limit")
    assert rig.snapshot().counts["fdb_changes"]["refused"] == 1
    assert rig.snapshot().peers[0].counters.drops["receive", "mac_limit"] == 1
    first.send(frame(20, 99))
    second.send(frame(26, 99))
    assert rig.frames(2) == [frame(20, 99), frame(26, 99)]


def test_the_addresses_of_a_removed_peer_are_withdrawn_at_once(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    meet(rig, first, second)
    rig.plane.remove_peer(first.handle)
    rig.put(frame(1, 11))
    assert second.payloads() == [frame(1, 11)]
    assert all(entry.handle != PeerHandle(1) for entry in rig.plane.fdb())


def test_a_new_peer_is_flooded_to_at_once(rig: Rig) -> None:
    first = rig.peer(1)
    meet(rig, first)
    rig.put(frame(1, BROADCAST))
    first.payloads()
    second = rig.peer(2)
    rig.put(frame(1, BROADCAST))
    assert first.payloads() == second.payloads() == [frame(1, BROADCAST)]


def test_a_peer_without_a_key_does_not_disturb_the_flood_to_others(rig: Rig) -> None:
    first = rig.peer(1)
    rig.peer(2, with_key=False)
    rig.put(frame(1, BROADCAST))
    assert first.payloads() == [frame(1, BROADCAST)]
    rig.dropped("transmit", "no_peer")


def test_many_flows_in_one_batch_reach_the_right_peers_in_order(rig: Rig) -> None:
    peers = [rig.peer(number) for number in range(1, 6)]
    meet(rig, *peers)
    frames = [frame(1, 11 + index % 5, index.to_bytes(2, "big")) for index in range(100)]
    rig.put(*frames)
    for peer in peers:
        wanted = [item for item in frames if item[:6] == station(10 + peer.number)]
        assert peer.payloads(20) == wanted
