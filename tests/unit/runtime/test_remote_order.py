"""Whom a client calls next, and when; on a clock of the test's own."""

from __future__ import annotations

from bridged.addresses import Endpoint, Remote
from bridged.runtime.client.remote_order import ADDRESSES_MAX, Candidate, RemoteOrder

FIRST, SECOND, THIRD = (Remote.parse(f"192.0.2.{number}:1194") for number in (1, 2, 3))
NAME = Remote.parse("hub.example:1194")
V6, OTHER_V6 = Endpoint("2001:db8::1", 1194), Endpoint("2001:db8::2", 1194)
V4, OTHER_V4 = Endpoint("198.51.100.1", 1194), Endpoint("198.51.100.2", 1194)


def calls(order: RemoteOrder, until: float, began: float = 0.0) -> list[tuple[float, str]]:
    """When who is called, if nobody answers; the clock goes from deadline to deadline."""
    now, found = began, []
    for _ in range(1000):
        while (candidate := order.next(now)) is not None:
            found.append((round(now, 3), candidate.endpoint.host))
        if order.is_over(now):
            return found
        later = order.deadline(now)
        assert later > now, "a deadline that is over would make the caller spin"
        if later > until:
            return found
        now = later
    raise AssertionError("no end")


def begun(*remotes: Remote) -> RemoteOrder:
    order = RemoteOrder(remotes)
    order.begin(0.0)
    return order


def test_the_next_remote_is_called_after_three_seconds_without_an_answer() -> None:
    assert calls(begun(FIRST, SECOND, THIRD), 100) == [
        (0.0, "192.0.2.1"),
        (3.0, "192.0.2.2"),
        (6.0, "192.0.2.3"),
    ]


def test_a_round_is_over_when_the_last_one_had_its_time() -> None:
    order = begun(FIRST, SECOND)
    calls(order, 3.5)
    assert not order.is_over(5.9)
    assert order.is_over(6.0)


def test_both_families_of_a_name_are_called_side_by_side_and_alternate() -> None:
    order = begun(NAME)
    order.set_addresses(NAME, [V6, OTHER_V6, V4, OTHER_V4])
    assert calls(order, 2) == [(0.0, V6.host), (0.25, V4.host), (0.5, OTHER_V6.host), (0.75, OTHER_V4.host)]


def test_a_refusal_brings_the_next_ones_turn_at_once() -> None:
    order = begun(FIRST, SECOND)
    assert order.next(0.0) == Candidate(FIRST, FIRST.server)
    assert order.next(0.1) is None
    order.refuse(FIRST.server)
    assert order.next(0.1) == Candidate(SECOND, SECOND.server)


def test_one_refused_address_does_not_take_the_others_of_its_remote_their_time() -> None:
    order = begun(NAME, FIRST)
    order.set_addresses(NAME, [V6, V4])
    assert order.next(0.0) is not None
    order.refuse(V6)
    assert order.next(0.0) == Candidate(NAME, V4)
    assert calls(order, 10) == [(3.0, "192.0.2.1")]


def test_a_round_takes_a_second_even_if_all_refuse_at_once() -> None:
    order = begun(FIRST, SECOND)
    while (candidate := order.next(0.0)) is not None:
        order.refuse(candidate.endpoint)
    assert not order.is_over(0.9)
    assert order.is_over(1.0)


def test_a_name_that_is_not_looked_up_yet_delays_the_next_remote_by_three_seconds_only() -> None:
    assert calls(begun(NAME, FIRST), 10) == [(3.0, "192.0.2.1")]


def test_a_name_that_cannot_be_looked_up_delays_nobody() -> None:
    order = begun(NAME, FIRST)
    assert order.next(0.0) is None
    order.note_no_name(NAME)
    assert order.next(0.0) == Candidate(FIRST, FIRST.server)


def test_an_address_that_appears_is_called_in_the_same_round() -> None:
    order = begun(NAME, FIRST)
    assert order.set_addresses(NAME, [V4])
    calls(order, 3.0)
    assert order.set_addresses(NAME, [OTHER_V4])
    assert order.next(3.1) == Candidate(NAME, OTHER_V4)
    assert not order.set_addresses(NAME, [OTHER_V4]), "nothing new"


def test_a_failed_look_up_keeps_the_addresses_of_the_one_before() -> None:
    order = begun(NAME)
    order.set_addresses(NAME, [V4])
    order.note_no_name(NAME)
    assert order.next(0.0) == Candidate(NAME, V4)


def test_what_worked_last_is_called_first() -> None:
    order = begun(FIRST, NAME)
    order.set_addresses(NAME, [V6, V4])
    order.prefer(Candidate(NAME, V4))
    assert calls(order, 10)[:3] == [(0.0, V4.host), (0.25, V6.host), (3.0, "192.0.2.1")]


def test_a_remote_that_worked_and_is_configured_no_more_changes_nothing() -> None:
    order = begun(FIRST)
    order.prefer(Candidate(SECOND, SECOND.server))
    assert calls(order, 10) == [(0.0, "192.0.2.1")]


def test_a_server_that_sends_us_to_the_next_remote_is_not_called_at_its_other_addresses() -> None:
    order = begun(NAME, FIRST)
    order.set_addresses(NAME, [V6, V4])
    assert order.next(0.0) is not None
    order.skip(NAME)
    assert order.next(0.1) == Candidate(FIRST, FIRST.server)


def test_who_was_given_up_for_another_may_be_called_again_in_the_round() -> None:
    order = begun(FIRST, SECOND)
    calls(order, 3.0)
    order.forget(FIRST.server)
    assert order.next(3.1) == Candidate(FIRST, FIRST.server)


def test_a_name_server_does_not_decide_how_many_addresses_are_called() -> None:
    order = begun(NAME)
    order.set_addresses(NAME, [Endpoint(f"198.51.100.{number}", 1194) for number in range(200)])
    assert len(calls(order, 100)) == ADDRESSES_MAX


def test_a_shuffled_order_is_drawn_anew_for_each_round_and_what_worked_last_comes_first() -> None:
    order = RemoteOrder((FIRST, SECOND, THIRD), lambda remotes: remotes.reverse())
    order.begin(0.0)
    assert [host for _, host in calls(order, 20)] == ["192.0.2.3", "192.0.2.2", "192.0.2.1"]
    order.begin(20.0)
    assert [host for _, host in calls(order, 40, 20.0)] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    order.prefer(Candidate(SECOND, SECOND.server))
    for began in (40.0, 60.0):
        order.begin(began)
        assert calls(order, began + 20, began)[0] == (began, "192.0.2.2")


def test_a_round_that_is_resumed_goes_on_with_those_who_have_not_refused() -> None:
    order = begun(NAME, FIRST)
    order.set_addresses(NAME, [V4, OTHER_V4])
    assert order.next(0.0) == Candidate(NAME, V4)
    order.refuse(V4)
    assert order.next(0.0) == Candidate(NAME, OTHER_V4)
    order.resume(5.0)
    assert calls(order, 30, 5.0) == [(5.0, OTHER_V4.host), (8.0, "192.0.2.1")]


def test_an_address_that_is_passed_over_is_called_in_the_next_round() -> None:
    order = begun(NAME, FIRST)
    order.set_addresses(NAME, [V4, OTHER_V4])
    order.prefer(Candidate(NAME, V4))
    order.begin(5.0)
    order.pass_over(V4)
    assert [host for _, host in calls(order, 30, 5.0)] == [OTHER_V4.host, "192.0.2.1"]
    order.begin(40.0)
    assert order.next(40.0) == Candidate(NAME, V4)
