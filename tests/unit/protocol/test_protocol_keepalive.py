"""Ping and restart timers."""

from __future__ import annotations

from bridged.protocol.keepalive import Keepalive, KeepaliveAction
from bridged.units import Seconds

NONE, PING, LOST = KeepaliveAction.NONE, KeepaliveAction.SEND_PING, KeepaliveAction.PEER_LOST


def test_a_ping_is_due_when_nothing_was_sent_for_the_interval() -> None:
    timer = Keepalive(Seconds(5), None, now=100.0)
    assert timer.poll(104.9) is NONE and timer.next_deadline() == 105.0
    assert timer.poll(105.0) is PING
    timer.note_sent(105.0)
    assert timer.poll(109.0) is NONE
    timer.note_sent(109.0)
    assert timer.next_deadline() == 114.0


def test_receiving_does_not_put_off_our_ping() -> None:
    timer = Keepalive(Seconds(5), Seconds(20), now=0.0)
    timer.note_received(4.0)
    assert timer.poll(5.0) is PING


def test_the_peer_is_lost_when_nothing_came_however_much_we_sent() -> None:
    timer = Keepalive(Seconds(5), Seconds(20), now=0.0)
    for second in range(20):
        timer.note_sent(float(second))
        assert timer.poll(float(second)) is NONE
    assert timer.poll(20.0) is LOST


def test_received_packets_put_the_loss_off() -> None:
    timer = Keepalive(None, Seconds(20), now=0.0)
    timer.note_received(15.0)
    assert timer.poll(34.9) is NONE and timer.next_deadline() == 35.0
    assert timer.poll(35.0) is LOST


def test_zero_and_none_turn_a_timer_off() -> None:
    for off in (None, Seconds(0)):
        timer = Keepalive(off, off, now=0.0)
        assert timer.next_deadline() is None and timer.poll(1e9) is NONE


def test_clocks_start_with_the_first_poll_where_no_time_was_given() -> None:
    timer = Keepalive(Seconds(5), Seconds(20))
    assert timer.next_deadline() is None
    assert timer.poll(1000.0) is NONE and timer.next_deadline() == 1005.0


def test_pushed_intervals_apply_to_running_clocks() -> None:
    timer = Keepalive(None, Seconds(120), now=0.0)
    timer.set_intervals(Seconds(3), Seconds(20))
    assert timer.next_deadline() == 3.0
    assert timer.poll(20.0) is LOST
