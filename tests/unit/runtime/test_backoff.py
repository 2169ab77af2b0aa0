"""How long a client waits before it calls again, and before it dials a TCP server again."""

from __future__ import annotations

import pytest

from bridged.addresses import Endpoint
from bridged.runtime.client.backoff import Backoff, pause_after
from bridged.runtime.client.dial_pauses import ENDPOINTS_MAX, DialPauses

DOUBLED = [1.0] * 5 + [2.0, 4.0, 8.0, 16.0, 32.0] + [60.0] * 6
OVER_TCP, BESIDE = Endpoint("192.0.2.1", 443, "tcp"), Endpoint("2001:db8::1", 443, "tcp")


def latest() -> float:
    """Draws the longest of our own pauses, and the shortest of those that are asked for."""
    return 0.0


def made() -> Backoff:
    return Backoff(latest)


def rounds(backoff: Backoff, count: int, *, is_refused: bool) -> list[float]:
    """The pauses after so many rounds in a row."""
    found = []
    for _ in range(count):
        if is_refused:
            backoff.note_refusal(100.0, 0.0)
        backoff.end_round(100.0)
        found.append(backoff.until - 100.0)
    return found


def test_only_who_was_told_no_waits_longer_and_longer_up_to_a_minute() -> None:
    assert rounds(made(), 16, is_refused=True) == DOUBLED
    assert rounds(made(), 50, is_refused=False) == [0.0] * 50


def test_pauses_are_drawn_between_half_and_all_so_that_clients_do_not_come_back_together() -> None:
    for failures, longest in enumerate(DOUBLED, 1):
        drawn = [pause_after(failures, lambda share=share / 50: share) for share in range(51)]
        assert (min(drawn), max(drawn)) == (longest / 2, longest) and len(set(drawn)) == 51
    assert len({round(rounds(Backoff(), 12, is_refused=True)[-1], 6) for _ in range(20)}) > 15


def test_what_a_server_asks_for_is_never_cut_short_and_differs_between_clients() -> None:
    for share in (0.0, 0.5, 1.0):
        backoff = Backoff(lambda share=share: share)
        backoff.note_refusal(0.0, 30.0, holds=True)
        assert backoff.until == pytest.approx(30.0 + 3.0 * share)
        backoff.end_connection(0.0, "kicked", 60.0)
        assert backoff.until == pytest.approx(60.0 + 6.0 * share)


def test_a_round_without_a_refusal_makes_the_next_pause_short_again() -> None:
    backoff = made()
    rounds(backoff, 10, is_refused=True)
    rounds(backoff, 1, is_refused=False)
    assert rounds(backoff, 1, is_refused=True) == [1.0]


def test_a_server_that_says_how_long_is_waited_for_but_not_for_ever() -> None:
    backoff = made()
    backoff.note_refusal(0.0, 30.0)
    assert backoff.until == 0.0, "other servers may be called in this round"
    backoff.end_round(10.0)
    assert backoff.until == 30.0
    backoff.note_refusal(0.0, 1e9)
    backoff.end_round(0.0)
    assert backoff.until == 300.0


def test_a_refusal_that_holds_keeps_all_from_being_called_and_final_ones_end_only_by_the_clock() -> None:
    backoff = made()
    backoff.note_refusal(5.0, 20.0, holds=True)
    assert backoff.until == 25.0
    backoff.wake()
    assert backoff.until <= 5.0
    backoff.note_refusal(5.0, 20.0, holds=True, is_final=True)
    backoff.wake()
    assert backoff.until == 25.0
    backoff.start_again()
    backoff.wake()
    assert backoff.until <= 5.0


@pytest.mark.parametrize(
    ("reason", "seconds"), [("ping_timeout", 0.0), ("transport_closed", 0.0), ("exit_notify", 1.0)]
)
def test_after_a_connection_only_what_a_server_asked_for_is_waited(reason: str, seconds: float) -> None:
    backoff = made()
    backoff.end_connection(50.0, reason, 0.0)
    assert backoff.until == 50.0 + seconds


def test_our_own_pause_ends_sooner_than_what_a_server_asked_for() -> None:
    backoff = made()
    rounds(backoff, 12, is_refused=True)
    backoff.note_refusal(1000.0, 20.0)
    backoff.end_round(1005.0)
    assert backoff.until == 1065.0
    for _ in range(2):
        backoff.wake_own()
        assert backoff.until == 1020.0
    backoff.wake()
    assert backoff.until <= 1005.0
    backoff.end_connection(1050.0, "kicked", 30.0)
    backoff.wake_own()
    assert backoff.until == 1080.0


def test_who_is_thrown_out_by_another_machine_comes_back_ever_later() -> None:
    backoff = made()
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
    backoff = made()
    rounds(backoff, 12, is_refused=True)
    backoff.wake()
    assert backoff.until == 0.0
    assert rounds(backoff, 1, is_refused=True) == [60.0]
    backoff.start_again()
    assert rounds(backoff, 1, is_refused=True) == [1.0]


def test_a_tcp_server_that_takes_no_connection_is_dialled_less_and_less_each_for_itself() -> None:
    dials = DialPauses(latest)
    found = []
    for _ in DOUBLED:
        dials.note_failure(OVER_TCP, 100.0)
        found.append(dials.until(OVER_TCP) - 100.0)
    assert found == DOUBLED
    assert dials.until(BESIDE) == 0.0
    dials.note_failure(Endpoint("192.0.2.1", 443), 100.0)
    assert dials.until(Endpoint("192.0.2.1", 443)) == 0.0, "a datagram costs nothing"


def test_news_end_the_pauses_of_dialling_and_a_connection_or_the_clock_makes_them_short() -> None:
    for shorten in (lambda dials: dials.note_connected(OVER_TCP), lambda dials: dials.start_again()):
        dials = DialPauses(latest)
        for _ in range(20):
            dials.note_failure(OVER_TCP, 100.0)
        dials.wake()
        assert dials.until(OVER_TCP) <= 100.0
        dials.note_failure(OVER_TCP, 100.0)
        assert dials.until(OVER_TCP) == 160.0
        shorten(dials)
        assert dials.until(OVER_TCP) <= 100.0
        dials.note_failure(OVER_TCP, 100.0)
        assert dials.until(OVER_TCP) == 101.0


def test_however_many_endpoints_a_name_server_invents_few_are_remembered() -> None:
    dials = DialPauses(latest)
    for number in range(3 * ENDPOINTS_MAX):
        dials.note_failure(Endpoint("192.0.2.1", number + 1, "tcp"), 0.0)
    assert len(dials._failing) <= ENDPOINTS_MAX
