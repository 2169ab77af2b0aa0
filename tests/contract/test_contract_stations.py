"""Contract: stations that are installed from outside, looked up, and followed by their events."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bridged.dataplane.contract import (
    STATION_EVENTS_KEPT,
    Station,
    StationEvent,
    StationEvents,
    StationMoved,
)
from bridged.errors import DataplaneError
from bridged.units import PeerHandle, Seconds
from tests.contract.dataplane_rig import BROADCAST, Rig, frame, station
from tests.lab.bounds import Pace

Make = Callable[..., Rig]


def at(number: int) -> Station:
    return Station(0, station(number))


def test_an_installed_station_is_reached_before_it_has_spoken(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    rig.plane.install_station(at(50), first.handle, is_static=True)
    rig.plane.install_station(at(51), None, is_static=False)
    rig.put(frame(1, 50))
    assert first.payloads() == [frame(1, 50)]
    second.send(frame(12, 51))
    assert rig.frames() == [frame(12, 51)]
    assert second.is_quiet() and first.is_quiet()
    assert rig.snapshot().counts["fdb_changes"]["learned"] == 4
    assert rig.snapshot().peers[0].fdb_entries == 1


def test_a_static_station_stays_and_nobody_else_uses_its_address(make_rig: Make) -> None:
    rig = make_rig(ageing=Seconds(0.2), move_hold=Seconds(0.01))
    first, second = rig.peer(1), rig.peer(2)
    rig.plane.install_station(at(50), first.handle, is_static=True)
    time.sleep(0.5)
    rig.put(frame(50, BROADCAST))
    rig.dropped("transmit", "loop_guard")
    second.send(frame(50, BROADCAST))
    rig.dropped("receive", "loop_guard")
    first.send(frame(50, BROADCAST))
    assert rig.frames() == second.payloads() == [frame(50, BROADCAST)]
    time.sleep(0.5)
    rig.put(frame(1, 50))
    assert first.payloads() == [frame(1, 50)]
    assert first.is_quiet() and second.is_quiet() and rig.tap_is_quiet()


def test_a_static_station_behind_the_tap_cannot_be_taken_over_by_a_peer(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    rig.plane.install_station(at(1), None, is_static=True)
    first.send(frame(1, BROADCAST))
    rig.dropped("receive", "loop_guard")
    second.send(frame(12, 1))
    assert rig.frames() == [frame(12, 1)]
    rig.put(frame(1, 12))
    assert second.payloads() == [frame(1, 12)]
    assert first.is_quiet()


@pytest.mark.measures
def test_a_station_that_is_not_static_ages_and_moves_as_a_learned_one(make_rig: Make) -> None:
    rig = make_rig(ageing=Seconds(0.3))
    first, second = rig.peer(1), rig.peer(2)
    pace = Pace(0.3)
    rig.plane.install_station(at(50), first.handle, is_static=False)
    second.send(frame(50, BROADCAST))
    got, learned = (first.payloads(), rig.frames()), rig.learned(50)
    pace.step()
    assert got == ([frame(50, BROADCAST)], [frame(50, BROADCAST)])
    assert learned == second.handle
    assert rig.event(StationMoved) == StationMoved(at(50), first.handle, second.handle)
    time.sleep(0.5)
    assert rig.plane.find_station(at(50)) is None


def test_a_remembered_decision_gives_way_to_a_station_installed_later(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    second.send(frame(50, BROADCAST))
    assert first.payloads() == rig.frames() == [frame(50, BROADCAST)]
    for _ in range(3):
        rig.put(frame(1, 50))
        assert second.payloads() == [frame(1, 50)]
    rig.plane.install_station(at(50), first.handle, is_static=True)
    for _ in range(3):
        rig.put(frame(1, 50))
        assert first.payloads() == [frame(1, 50)]
    assert second.is_quiet()
    # Only a frame moves a station in that sense; the stream of station events has this one.
    assert rig.events(StationMoved) == []


def test_a_removed_station_is_flooded_to_until_it_speaks_again(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    first.send(frame(11, BROADCAST))
    assert second.payloads() == rig.frames() == [frame(11, BROADCAST)]
    rig.plane.install_station(at(50), first.handle, is_static=True)
    for number in (11, 50):
        rig.plane.remove_station(at(number))
        rig.plane.remove_station(at(number))
        rig.put(frame(1, number))
        assert first.payloads() == second.payloads() == [frame(1, number)]
    assert rig.snapshot().counts["fdb_changes"]["flushed"] == 2
    first.send(frame(11, 1))
    assert rig.frames() == [frame(11, 1)]
    rig.put(frame(1, 11))
    assert first.payloads() == [frame(1, 11)]
    assert second.is_quiet()


def test_a_static_station_goes_with_its_peer(rig: Rig) -> None:
    first, second = rig.peer(1), rig.peer(2)
    rig.plane.install_station(at(50), first.handle, is_static=True)
    rig.plane.remove_peer(first.handle)
    assert rig.plane.find_station(at(50)) is None
    rig.put(frame(1, 50))
    assert second.payloads() == [frame(1, 50)]


def test_a_station_is_found_with_its_port_and_age(rig: Rig) -> None:
    peer = rig.peer(1)
    peer.send(frame(11, BROADCAST))
    rig.frames()
    rig.plane.install_station(at(50), None, is_static=True)
    time.sleep(0.05)
    learned, static = rig.plane.find_station(at(11)), rig.plane.find_station(at(50))
    assert learned is not None and static is not None
    assert (learned.station, learned.handle, learned.is_static) == (at(11), peer.handle, False)
    assert 0.05 <= learned.age < 5
    assert (static.station, static.handle, static.age, static.is_static) == (at(50), None, 0, True)
    assert rig.plane.find_station(at(99)) is None
    assert rig.plane.find_station(Station(7, station(11))) is None
    assert {entry.station: entry.is_static for entry in rig.plane.fdb()} == {at(11): False, at(50): True}


def test_what_cannot_be_a_station_is_refused(make_rig: Make) -> None:
    rig = make_rig(fdb_capacity=2)
    peer = rig.peer(1)
    group = bytes.fromhex("03005e000001")
    for wrong in (Station(0, group), Station(0, bytes(6)), Station(0, b"\2\0\1"), Station(1, station(5))):
        with pytest.raises(DataplaneError) as refusal:
            rig.plane.install_station(wrong, peer.handle, is_static=True)
        assert refusal.value.code == "bad_station"
    with pytest.raises(DataplaneError) as refusal:
        rig.plane.install_station(at(50), PeerHandle(9), is_static=True)
    assert refusal.value.code == "unknown_peer"
    for number in (50, 51):
        rig.plane.install_station(at(number), peer.handle, is_static=True)
    with pytest.raises(DataplaneError) as refusal:
        rig.plane.install_station(at(52), peer.handle, is_static=True)
    assert refusal.value.code == "fdb_full"
    rig.plane.install_station(at(51), None, is_static=True)
    assert {entry.station: entry.handle for entry in rig.plane.fdb()} == {at(50): peer.handle, at(51): None}


@pytest.mark.measures
def test_each_change_of_the_fdb_is_told_once_and_in_order(make_rig: Make) -> None:
    rig = make_rig(ageing=Seconds(0.5))
    first, second = rig.peer(1), rig.peer(2)
    pace = Pace(0.5)
    assert rig.plane.station_events(0) == StationEvents((), 0, 0)
    for source in (first, first, second):
        source.send(frame(50, BROADCAST))
        rig.frames()
    learned = rig.plane.station_events(0)
    pace.step()
    assert learned.events == (
        StationEvent("learned", at(50), first.handle),
        StationEvent("moved", at(50), second.handle),
    )
    rig.plane.install_station(at(51), None, is_static=True)
    rig.plane.remove_station(at(51))
    rig.plane.remove_peer(second.handle)
    later = rig.plane.station_events(learned.next)
    pace.step()
    assert later.events == (
        StationEvent("learned", at(51), None),
        StationEvent("removed", at(51), None),
        StationEvent("removed", at(50), second.handle),
    )
    assert (later.next, later.lost) == (5, 0)
    assert rig.plane.station_events(later.next).events == ()
    assert rig.plane.station_events(0).events == learned.events + later.events


def test_a_reader_that_is_too_slow_hears_how_many_events_it_lost(make_rig: Make) -> None:
    rig = make_rig()
    peer = rig.peer(1)
    for number in range(STATION_EVENTS_KEPT // 2 + 5):
        rig.plane.install_station(at(1000 + number), peer.handle, is_static=False)
        rig.plane.remove_station(at(1000 + number))
    late = rig.plane.station_events(4)
    assert (late.next, late.lost, len(late.events)) == (STATION_EVENTS_KEPT + 10, 6, STATION_EVENTS_KEPT)
    assert late.events[0] == StationEvent("learned", at(1005), peer.handle)
