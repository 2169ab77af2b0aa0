"""How much of the processor strangers get at most."""

from __future__ import annotations

from bridged.dataplane.portable.control.work_budget import BURST_SECONDS, LONGEST_SECONDS, SHARE, WorkBudget

PACKET_SECONDS = 0.00002


def served(packets_per_second: int, seconds: float, took: float = PACKET_SECONDS) -> int:
    """How many of a flood's packets are dealt with."""
    budget, count = WorkBudget(), 0
    for number in range(int(packets_per_second * seconds)):
        if budget.has_some(100.0 + number / packets_per_second):
            budget.spend(took, 1)
            count += 1
    return count


def test_a_flood_gets_its_share_and_no_more_however_large_it_is() -> None:
    most = (BURST_SECONDS + SHARE * 10.0) / PACKET_SECONDS + 1
    for rate in (10_000, 100_000):
        assert 0.9 * most <= served(rate, 10.0) <= most


def test_clients_that_return_together_are_all_served() -> None:
    assert served(100_000, 0.05) == 5000


def test_what_comes_slowly_is_served_for_ever() -> None:
    assert served(1000, 60.0) == 60_000


def test_waiting_for_the_processor_is_not_charged() -> None:
    budget = WorkBudget()
    budget.has_some(1.0)
    for _ in range(int(BURST_SECONDS / LONGEST_SECONDS) - 1):
        budget.spend(3600.0, 1)
    assert budget.has_some(1.0)


def test_a_clock_that_steps_back_gives_nothing() -> None:
    budget = WorkBudget()
    budget.has_some(1000.0)
    while budget.has_some(1000.0):
        budget.spend(LONGEST_SECONDS, 1)
    assert not budget.has_some(0.0)
    assert budget.has_some(1.0)
