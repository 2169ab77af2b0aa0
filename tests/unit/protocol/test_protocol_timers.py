"""The table of a session's deadlines: when next, and why."""

from __future__ import annotations

from bridged.protocol.session.timers import NEVER, Deadline, Timer, TimerTable
from bridged.units import KeyId, MonotonicSeconds

ONE, TWO = KeyId(1), KeyId(2)


def test_an_empty_table_has_no_deadline() -> None:
    assert TimerTable().next() is None


def test_the_earliest_deadline_is_next_and_says_why() -> None:
    timers = TimerTable()
    timers.set(Timer.RENEGOTIATION, 30.0)
    timers.set(Timer.RETRANSMISSION, 12.0, ONE)
    timers.set(Timer.HANDSHAKE_WINDOW, 20.0, ONE)
    assert timers.next() == Deadline(MonotonicSeconds(12.0), "retransmission")


def test_a_timer_that_is_set_again_moves() -> None:
    timers = TimerTable()
    timers.set(Timer.DRAIN, 5.0)
    timers.set(Timer.DRAIN, 9.0)
    assert timers.next() == Deadline(MonotonicSeconds(9.0), "drain")


def test_only_the_timers_asked_for_count() -> None:
    timers = TimerTable()
    timers.set(Timer.RENEGOTIATION, 1.0)
    assert timers.next((Timer.DRAIN, Timer.RETRANSMISSION)) is None
    timers.set(Timer.DRAIN, 2.0)
    assert timers.next((Timer.DRAIN, Timer.RETRANSMISSION)) == Deadline(MonotonicSeconds(2.0), "drain")


def test_each_key_has_a_row_of_its_own() -> None:
    timers = TimerTable()
    timers.set(Timer.KEY_RETIRES, 10.0, ONE)
    timers.set(Timer.KEY_RETIRES, 20.0, TWO)
    assert timers.due_keys(Timer.KEY_RETIRES, 9.9) == []
    assert timers.due_keys(Timer.KEY_RETIRES, 10.0) == [ONE]
    assert timers.stop(Timer.KEY_RETIRES, ONE) and not timers.stop(Timer.KEY_RETIRES, ONE)
    assert timers.due_keys(Timer.KEY_RETIRES, 30.0) == [TWO]


def test_hastening_shortens_and_never_lengthens() -> None:
    timers = TimerTable()
    timers.set(Timer.KEY_RETIRES, 10.0, ONE)
    timers.set(Timer.KEY_RETIRES, 20.0, TWO)
    timers.set(Timer.LAME_DUCK, 20.0)
    timers.hasten_all(Timer.KEY_RETIRES, 15.0)
    assert [timers.at(Timer.KEY_RETIRES, key) for key in (ONE, TWO)] == [10.0, 15.0]
    assert timers.at(Timer.LAME_DUCK) == 20.0


def test_a_due_timer_is_taken_once() -> None:
    timers = TimerTable()
    timers.set(Timer.RENEGOTIATION, 10.0)
    assert not timers.take(Timer.RENEGOTIATION, 9.9)
    assert timers.is_due(Timer.RENEGOTIATION, 10.0) and timers.take(Timer.RENEGOTIATION, 10.0)
    assert not timers.take(Timer.RENEGOTIATION, 10.0)
    assert timers.at(Timer.RENEGOTIATION) == NEVER


def test_stopping_all_leaves_other_timers_alone() -> None:
    timers = TimerTable()
    timers.set(Timer.RETRANSMISSION, 1.0, ONE)
    timers.set(Timer.RETRANSMISSION, 2.0, TWO)
    timers.set(Timer.HANDSHAKE_WINDOW, 3.0, ONE)
    timers.stop_all(Timer.RETRANSMISSION)
    assert timers.next() == Deadline(MonotonicSeconds(3.0), "handshake window")
