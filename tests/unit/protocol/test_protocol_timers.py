"""The table of a session's deadlines: when next, and why."""

from __future__ import annotations

from bridged.protocol.session.timers import NEVER, Deadline, SessionTimer, TimerTable
from bridged.units import KeyId, MonotonicSeconds

ONE, TWO = KeyId(1), KeyId(2)


def test_an_empty_table_has_no_deadline() -> None:
    assert TimerTable().next() is None


def test_the_earliest_deadline_is_next_and_says_why() -> None:
    timers = TimerTable()
    timers.set(SessionTimer.RENEGOTIATION, 30.0)
    timers.set(SessionTimer.RETRANSMISSION, 12.0, ONE)
    timers.set(SessionTimer.HANDSHAKE_WINDOW, 20.0, ONE)
    assert timers.next() == Deadline(MonotonicSeconds(12.0), "retransmission")


def test_a_timer_that_is_set_again_moves() -> None:
    timers = TimerTable()
    timers.set(SessionTimer.DRAIN, 5.0)
    timers.set(SessionTimer.DRAIN, 9.0)
    assert timers.next() == Deadline(MonotonicSeconds(9.0), "drain")


def test_only_the_timers_asked_for_count() -> None:
    timers = TimerTable()
    timers.set(SessionTimer.RENEGOTIATION, 1.0)
    assert timers.next((SessionTimer.DRAIN, SessionTimer.RETRANSMISSION)) is None
    timers.set(SessionTimer.DRAIN, 2.0)
    assert timers.next((SessionTimer.DRAIN, SessionTimer.RETRANSMISSION)) == Deadline(
        MonotonicSeconds(2.0), "drain"
    )


def test_each_key_has_a_row_of_its_own() -> None:
    timers = TimerTable()
    timers.set(SessionTimer.KEY_RETIRES, 10.0, ONE)
    timers.set(SessionTimer.KEY_RETIRES, 20.0, TWO)
    assert timers.due_keys(SessionTimer.KEY_RETIRES, 9.9) == []
    assert timers.due_keys(SessionTimer.KEY_RETIRES, 10.0) == [ONE]
    assert timers.stop(SessionTimer.KEY_RETIRES, ONE) and not timers.stop(SessionTimer.KEY_RETIRES, ONE)
    assert timers.due_keys(SessionTimer.KEY_RETIRES, 30.0) == [TWO]


def test_hastening_shortens_and_never_lengthens() -> None:
    timers = TimerTable()
    timers.set(SessionTimer.KEY_RETIRES, 10.0, ONE)
    timers.set(SessionTimer.KEY_RETIRES, 20.0, TWO)
    timers.set(SessionTimer.LAME_DUCK, 20.0)
    timers.hasten_all(SessionTimer.KEY_RETIRES, 15.0)
    assert [timers.at(SessionTimer.KEY_RETIRES, key) for key in (ONE, TWO)] == [10.0, 15.0]
    assert timers.at(SessionTimer.LAME_DUCK) == 20.0


def test_a_due_timer_is_taken_once() -> None:
    timers = TimerTable()
    timers.set(SessionTimer.RENEGOTIATION, 10.0)
    assert not timers.take(SessionTimer.RENEGOTIATION, 9.9)
    assert timers.is_due(SessionTimer.RENEGOTIATION, 10.0) and timers.take(SessionTimer.RENEGOTIATION, 10.0)
    assert not timers.take(SessionTimer.RENEGOTIATION, 10.0)
    assert timers.at(SessionTimer.RENEGOTIATION) == NEVER


def test_stopping_all_leaves_other_timers_alone() -> None:
    timers = TimerTable()
    timers.set(SessionTimer.RETRANSMISSION, 1.0, ONE)
    timers.set(SessionTimer.RETRANSMISSION, 2.0, TWO)
    timers.set(SessionTimer.HANDSHAKE_WINDOW, 3.0, ONE)
    timers.stop_all(SessionTimer.RETRANSMISSION)
    assert timers.next() == Deadline(MonotonicSeconds(3.0), "handshake window")
