"""How long a client waits before it calls again."""

from __future__ import annotations

import pytest

from bridged.runtime.client.backoff import Backoff


def rounds(backoff: Backoff, count: int, *, is_refused: bool) -> list[float]:
    """The pauses after so many rounds in a row."""
    found = []
    for _ in range(count):
        if is_refused:
            backoff.note_refusal(0.0)
        backoff.end_round(100.0)
        found.append(backoff.until - 100.0)
    return found


def test_only_who_was_told_no_waits_longer_and_longer() -> None:
    assert (
        rounds(Backoff(), 16, is_refused=True)
        == [1.0] * 5 + [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0] + [300.0] * 3
    )
    assert rounds(Backoff(), 50, is_refused=False) == [0.0] * 50


def test_a_round_without_a_refusal_makes_the_next_pause_short_again() -> None:
    backoff = Backoff()
    rounds(backoff, 10, is_refused=True)
    rounds(backoff, 1, is_refused=False)
    assert rounds(backoff, 1, is_refused=True) == [1.0]


def test_a_server_that_says_how_long_is_waited_for_but_not_for_ever() -> None:
    backoff = Backoff()
    backoff.note_refusal(30.0)
    backoff.end_round(0.0)
    assert backoff.until == 30.0
    backoff.note_refusal(1e9)
    backoff.end_round(0.0)
    assert backoff.until == 300.0


@pytest.mark.parametrize(
    ("reason", "seconds"), [("ping_timeout", 0.0), ("transport_closed", 0.0), ("exit_notify", 1.0)]
)
def test_after_a_connection_only_what_a_server_asked_for_is_waited(reason: str, seconds: float) -> None:
    backoff = Backoff()
    backoff.end_connection(50.0, reason, 0.0)
    assert backoff.until == 50.0 + seconds


def test_who_is_thrown_out_by_another_machine_comes_back_ever_later() -> None:
    backoff = Backoff()
    waits = []
    for _ in range(5):
        backoff.end_connection(0.0, "auth_expired", 60.0)
        waits.append(backoff.until)
        backoff.note_connected()
    assert waits == [60.0, 120.0, 240.0, 300.0, 300.0]
    backoff.end_connection(0.0, "ping_timeout", 0.0)
    backoff.end_connection(0.0, "auth_expired", 60.0)
    assert backoff.until == 60.0


def test_a_wake_ends_the_pause_and_a_clock_that_was_set_makes_the_next_ones_short() -> None:
    backoff = Backoff()
    rounds(backoff, 12, is_refused=True)
    backoff.wake()
    assert backoff.until == 0.0
    assert rounds(backoff, 1, is_refused=True)[0] > 100
    backoff.start_again()
    assert rounds(backoff, 1, is_refused=True) == [1.0]
