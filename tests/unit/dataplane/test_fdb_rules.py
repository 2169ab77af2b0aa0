"""The forwarding database's rules, with time as an argument."""

from __future__ import annotations

import pytest

from bridged.dataplane.contract import STATION_EVENTS_KEPT, Station, StationEvent
from bridged.dataplane.portable.tables.fdb import SWEEP_STATIONS, Fdb, StationMove
from bridged.units import MonotonicSeconds, PeerHandle, Seconds

ALICE, BOB = PeerHandle(1), PeerHandle(2)


def mac(number: int) -> Station:
    return Station(0, b"\x02\x00" + number.to_bytes(4, "big"))


def at(moment: float) -> MonotonicSeconds:
    return MonotonicSeconds(moment)


def make(capacity: int = 100, per_peer: int = 50, ageing: float = 300.0, hold: float = 0.25) -> Fdb:
    return Fdb(
        capacity=capacity, addresses_per_peer=per_peer, ageing=Seconds(ageing), move_hold=Seconds(hold)
    )


def port_of(fdb: Fdb, number: int, moment: float) -> object:
    station = fdb.find(mac(number), at(moment))
    return "unknown" if station is None else station.port


def test_a_learned_address_is_found_behind_its_port() -> None:
    fdb = make()
    assert fdb.learn(mac(1), ALICE, at(0)) is None
    assert fdb.learn(mac(2), None, at(0)) is None
    assert (port_of(fdb, 1, 1), port_of(fdb, 2, 1), port_of(fdb, 3, 1)) == (ALICE, None, "unknown")
    assert (len(fdb), fdb.count(ALICE), fdb.count(None), fdb.count(BOB)) == (2, 1, 1, 0)
    assert fdb.changes["learned"] == 2


def test_an_address_is_unknown_from_the_moment_it_has_aged_even_before_a_sweep() -> None:
    fdb = make(ageing=10)
    fdb.learn(mac(1), ALICE, at(0))
    assert port_of(fdb, 1, 10) == ALICE
    assert port_of(fdb, 1, 10.001) == "unknown"
    assert list(fdb.entries(at(11))) == []
    assert fdb.sweep(at(11)) == 1
    assert (len(fdb), fdb.count(ALICE), fdb.changes["aged"]) == (0, 0, 1)


def test_every_frame_makes_its_station_young_again() -> None:
    fdb = make(ageing=10)
    for moment in range(0, 100, 9):
        assert fdb.learn(mac(1), ALICE, at(moment)) is None
    assert port_of(fdb, 1, 105) == ALICE
    assert fdb.changes["learned"] == 1


def test_an_aged_address_is_learned_anew_at_another_port_without_a_move() -> None:
    fdb = make(ageing=10)
    fdb.learn(mac(1), ALICE, at(0))
    assert fdb.learn(mac(1), None, at(20)) is None
    assert port_of(fdb, 1, 20) is None
    assert (fdb.changes["moved"], fdb.changes["aged"], fdb.changes["learned"]) == (0, 1, 2)
    assert not fdb.moves


def test_a_station_moves_between_peers_at_once() -> None:
    fdb = make()
    fdb.learn(mac(1), ALICE, at(0))
    assert fdb.learn(mac(1), BOB, at(0.001)) is None
    assert port_of(fdb, 1, 1) == BOB
    assert list(fdb.moves) == [StationMove(mac(1), ALICE, BOB)]
    assert (fdb.count(ALICE), fdb.count(BOB)) == (0, 1)


def test_a_station_does_not_move_from_a_peer_to_the_tap_within_the_hold() -> None:
    fdb = make(hold=0.25)
    fdb.learn(mac(1), ALICE, at(0))
    assert fdb.learn(mac(1), None, at(0.249)) == "loop_guard"
    assert port_of(fdb, 1, 1) == ALICE
    assert fdb.learn(mac(1), None, at(0.25)) is None
    assert port_of(fdb, 1, 1) is None


def test_each_frame_from_the_peer_renews_the_hold() -> None:
    fdb = make(hold=0.25)
    fdb.learn(mac(1), ALICE, at(0))
    fdb.learn(mac(1), ALICE, at(0.2))
    assert fdb.learn(mac(1), None, at(0.4)) == "loop_guard"


def test_a_reflected_frame_does_not_renew_the_hold() -> None:
    fdb = make(hold=0.25)
    fdb.learn(mac(1), ALICE, at(0))
    assert fdb.learn(mac(1), None, at(0.2)) == "loop_guard"
    assert fdb.learn(mac(1), None, at(0.3)) is None


def test_a_station_moves_from_the_tap_to_a_peer_at_once() -> None:
    fdb = make()
    fdb.learn(mac(1), None, at(0))
    assert fdb.learn(mac(1), ALICE, at(0.001)) is None
    assert port_of(fdb, 1, 0.001) == ALICE


def test_group_and_zero_addresses_are_never_learned() -> None:
    fdb = make()
    assert fdb.learn(Station(0, b"\x01\0\0\0\0\1"), ALICE, at(0)) == "source_multicast"
    assert fdb.learn(Station(0, b"\xff" * 6), None, at(0)) == "source_multicast"
    assert fdb.learn(Station(0, bytes(6)), ALICE, at(0)) == "reserved_address"
    assert len(fdb) == 0


def test_a_peer_learns_up_to_its_limit_and_the_others_go_on() -> None:
    fdb = make(per_peer=3)
    for number in range(3):
        assert fdb.learn(mac(number + 1), ALICE, at(0)) is None
    assert fdb.learn(mac(9), ALICE, at(0)) == "mac_limit"
    assert fdb.learn(mac(1), ALICE, at(0)) is None
    assert fdb.learn(mac(10), BOB, at(0)) is None
    assert fdb.learn(mac(10), ALICE, at(0)) == "mac_limit", "nor may it take one from another"
    assert port_of(fdb, 10, 0) == BOB
    assert fdb.changes["refused"] == 2


def test_the_limit_of_a_peer_does_not_bind_the_tap() -> None:
    fdb = make(per_peer=1)
    assert [fdb.learn(mac(number), None, at(0)) for number in (1, 2, 3)] == [None] * 3


def test_a_full_database_lets_everybody_pass_unlearned() -> None:
    fdb = make(capacity=2)
    fdb.learn(mac(1), ALICE, at(0))
    fdb.learn(mac(2), None, at(0))
    for number, port in ((3, BOB), (4, None)):
        assert fdb.learn(mac(number), port, at(0)) is None
        assert port_of(fdb, number, 0) == "unknown"
    assert len(fdb) == 2
    assert fdb.changes["refused"] == 2


@pytest.mark.parametrize("greedy", [None, ALICE])
def test_no_port_fills_the_database_for_the_others(greedy: PeerHandle | None) -> None:
    fdb = make(capacity=100, per_peer=100)
    assert [fdb.learn(mac(number + 1), greedy, at(0)) for number in range(1000)] == [None] * 1000
    assert fdb.count(greedy) == fdb.share == 50
    fdb.learn(mac(2000), BOB, at(0))
    assert port_of(fdb, 2000, 0) == BOB
    assert fdb.learn(mac(1), BOB, at(1)) is None
    assert port_of(fdb, 1, 1) == BOB, "stations still move"


def test_a_flush_forgets_one_port_only() -> None:
    fdb = make()
    for number, port in ((1, ALICE), (2, ALICE), (3, BOB), (4, None)):
        fdb.learn(mac(number), port, at(0))
    before = fdb.version
    assert fdb.flush(ALICE) == 2
    assert fdb.version != before
    assert {station for station, _ in fdb.entries(at(0))} == {mac(3), mac(4)}
    assert fdb.changes["flushed"] == 2
    assert fdb.flush(PeerHandle(77)) == 0


def test_a_static_station_neither_ages_nor_moves_nor_lets_others_use_its_address() -> None:
    fdb = make(ageing=10)
    assert fdb.install(mac(1), ALICE, at(0), is_static=True)
    assert fdb.sweep(at(1000)) == 0
    assert port_of(fdb, 1, 1000) == ALICE
    for elsewhere in (BOB, None):
        assert fdb.learn(mac(1), elsewhere, at(1000)) == "loop_guard"
    assert fdb.learn(mac(1), ALICE, at(1000)) is None
    assert (port_of(fdb, 1, 2000), fdb.changes["moved"], fdb.changes["aged"]) == (ALICE, 0, 0)


def test_an_installed_station_that_is_not_static_is_like_one_just_heard() -> None:
    fdb = make(ageing=10)
    fdb.install(mac(1), ALICE, at(0), is_static=False)
    assert (port_of(fdb, 1, 10), port_of(fdb, 1, 11)) == (ALICE, "unknown")
    fdb.install(mac(2), ALICE, at(20), is_static=False)
    assert fdb.learn(mac(2), BOB, at(20)) is None
    assert port_of(fdb, 2, 20) == BOB


def test_installing_replaces_what_was_known_and_removing_ends_it() -> None:
    fdb = make()
    fdb.learn(mac(1), ALICE, at(0))
    fdb.install(mac(1), BOB, at(1), is_static=True)
    assert (port_of(fdb, 1, 1), fdb.count(ALICE), fdb.count(BOB), fdb.changes["moved"]) == (BOB, 0, 1, 1)
    fdb.install(mac(1), BOB, at(2), is_static=False)
    assert fdb.learn(mac(1), ALICE, at(2)) is None, "it may move again"
    fdb.remove(mac(1))
    fdb.remove(mac(1))
    assert (port_of(fdb, 1, 2), len(fdb), fdb.changes["flushed"]) == ("unknown", 0, 1)


def test_a_full_database_takes_no_new_station_but_replaces_known_ones() -> None:
    fdb = make(capacity=2, per_peer=1)
    assert [fdb.install(mac(number), ALICE, at(0), is_static=True) for number in (1, 2, 3)] == [
        True,
        True,
        False,
    ]
    assert fdb.install(mac(1), None, at(0), is_static=True)


def test_a_station_of_another_vlan_is_another_station() -> None:
    fdb = make()
    here, there = mac(1), Station(7, mac(1).mac)
    fdb.learn(here, ALICE, at(0))
    fdb.learn(there, BOB, at(0))
    known = [fdb.find(station, at(0)) for station in (here, there)]
    assert [entry and entry.port for entry in known] == [ALICE, BOB]
    assert fdb.changes["moved"] == 0


def test_the_stream_of_events_tells_each_change_once_and_in_order() -> None:
    fdb = make(ageing=10)
    fdb.learn(mac(1), ALICE, at(0))
    first = fdb.events(0)
    assert first.events == (StationEvent("learned", mac(1), ALICE),) and first.lost == 0
    fdb.learn(mac(1), ALICE, at(1))
    assert fdb.events(first.next).events == (), "a frame that changes nothing is no event"
    fdb.learn(mac(1), BOB, at(1))
    fdb.sweep(at(50))
    second = fdb.events(first.next)
    assert second.events == (StationEvent("moved", mac(1), BOB), StationEvent("removed", mac(1), BOB))
    assert fdb.events(0).events == first.events + second.events, "each reader has its own place"
    assert fdb.events(second.next) == fdb.events(second.next)


def test_a_reader_that_is_too_slow_hears_how_much_it_has_lost() -> None:
    fdb = make(capacity=4 * STATION_EVENTS_KEPT, per_peer=2 * STATION_EVENTS_KEPT)
    for number in range(STATION_EVENTS_KEPT + 10):
        fdb.learn(mac(number + 1), ALICE, at(0))
    late = fdb.events(3)
    assert (late.lost, len(late.events)) == (7, STATION_EVENTS_KEPT)
    assert late.events[0].station == mac(11)
    assert fdb.events(10).lost == 0


def test_a_large_database_is_swept_in_slices() -> None:
    fdb = make(capacity=40_000, per_peer=20_000, ageing=10)
    for number in range(SWEEP_STATIONS * 2 + 10):
        fdb.learn(mac(number + 1), ALICE, at(0))
    slices = [fdb.sweep(at(20)) for _ in range(4)]
    assert max(slices) <= SWEEP_STATIONS
    assert sum(slices) == SWEEP_STATIONS * 2 + 10
    assert len(fdb) == 0


def test_the_version_changes_with_every_answer_that_may_change() -> None:
    fdb = make(ageing=10)
    versions = [fdb.version]
    for step in (
        lambda: fdb.learn(mac(1), ALICE, at(0)),
        lambda: fdb.learn(mac(1), BOB, at(1)),
        lambda: fdb.flush(BOB),
        lambda: fdb.learn(mac(1), None, at(2)),
        lambda: fdb.sweep(at(50)),
    ):
        step()
        versions.append(fdb.version)
    assert len(set(versions)) == len(versions)
    fdb.learn(mac(2), ALICE, at(50))
    version = fdb.version
    fdb.learn(mac(2), ALICE, at(51))
    assert fdb.version == version
