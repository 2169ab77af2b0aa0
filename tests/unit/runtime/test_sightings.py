"""What a LAN port had first stays its, whatever peers send; what a peer had first is the peer's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridged.runtime.watchers.sightings import HELD_ALONE_SECONDS, LAN_MEMORY_SECONDS, Sightings


def test_a_station_that_a_peer_had_first_is_remote() -> None:
    sightings = Sightings()
    sightings.hear_tap("x", 10.0)
    sightings.hear_lan("x", 10.0)
    sightings.hear_tap("x", 10.5)
    sightings.hear_lan("x", 10.501)
    assert sightings.was_remote_first("x", 10.6)


def test_a_station_that_no_peer_was_heard_with_is_not_remote() -> None:
    sightings = Sightings()
    sightings.hear_lan("x", 10.0)
    assert not sightings.was_remote_first("x", 10.0) and not sightings.was_remote_first("y", 10.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, HELD_ALONE_SECONDS)), max_size=200))
def test_a_lan_station_that_speaks_now_and_then_is_never_remote_however_a_peer_claims_it(
    steps: list[tuple[bool, float]],
) -> None:
    sightings, now = Sightings(), 5.0
    sightings.hear_lan("x", now)
    for is_forgotten, pause in steps:
        if is_forgotten:
            sightings.forget_tap("x")
        sightings.hear_tap("x", now + pause / 2)
        now += pause
        sightings.hear_lan("x", now)
        assert not sightings.was_remote_first("x", now)


def test_a_lan_station_that_was_silent_for_less_than_its_memory_is_still_its() -> None:
    sightings = Sightings()
    sightings.hear_lan("x", 0.0)
    sightings.hear_tap("x", LAN_MEMORY_SECONDS - 1)
    sightings.hear_lan("x", LAN_MEMORY_SECONDS)
    assert not sightings.was_remote_first("x", LAN_MEMORY_SECONDS)


def test_a_station_that_moved_to_a_peer_for_good_is_remote_from_then_on() -> None:
    sightings = Sightings()
    sightings.hear_lan("x", 0.0)
    sightings.hear_tap("x", 1.0)
    later = 2.0 + HELD_ALONE_SECONDS
    sightings.hear_lan("x", later)
    assert sightings.was_remote_first("x", later), "the peer had it alone for so long"


def test_peers_push_out_claims_of_peers_only_and_a_full_table_of_the_lan_holds_nothing() -> None:
    sightings = Sightings(stations_max=4)
    sightings.hear_lan("mine", 0.0)
    for number in range(100):
        sightings.hear_tap(number, 1.0 + number)
    sightings.hear_tap("mine", 200.0)
    assert not sightings.was_remote_first("mine", 200.0)
    for number in range(100, 110):
        sightings.hear_lan(number, 201.0)
    sightings.hear_tap("new", 202.0)
    sightings.hear_lan("new", 202.001)
    assert not sightings.was_remote_first("new", 203.0), "it may have been the LAN's: nobody knows"
    assert len(sightings._lan) <= 4 and len(sightings._tap) <= 4
    later = 202.0 + 2 * LAN_MEMORY_SECONDS
    sightings.hear_lan("other", later)
    assert len(sightings._lan) == 1, "what is silent for long makes room"
