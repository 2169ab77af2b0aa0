"""When peers' timers are looked at, and what their OCC messages may be."""

from __future__ import annotations

import random

from bridged.dataplane.portable.control.allowance import Allowance
from bridged.dataplane.portable.control.schedule import SPARE_ENTRIES, Schedule
from bridged.units import PeerHandle


def test_each_peer_is_looked_at_once_at_its_latest_moment_and_in_order() -> None:
    schedule = Schedule()
    model: dict[PeerHandle, float] = {}
    script = random.Random(7)
    now = 0.0
    for _ in range(3000):
        handle = PeerHandle(script.randrange(20))
        moment = None if script.random() < 0.2 else now + script.random()
        schedule.set(handle, moment)
        model.pop(handle, None)
        if moment is not None:
            model[handle] = moment
        assert schedule.next() == min(model.values(), default=float("inf"))
        if script.random() < 0.3:
            now += script.random() / 10
            due = sorted((at, known) for known, at in model.items() if at <= now)
            for _, known in due:
                assert schedule.take_due(now) == known
                del model[known]
            assert schedule.take_due(now) is None


def test_moments_that_no_longer_count_take_bounded_memory() -> None:
    schedule = Schedule()
    for number in range(10_000):
        schedule.set(PeerHandle(1), float(number + 1_000_000 - number % 7))
    assert len(schedule._heap) <= 2 + SPARE_ENTRIES


def test_an_allowance_has_a_burst_and_then_a_rate() -> None:
    allowance = Allowance(5, 2)
    assert [allowance.take(1.0) for _ in range(8)] == [True] * 5 + [False] * 3
    assert [allowance.take(1.5) for _ in range(2)] == [True, False]
    assert [allowance.take(0.0) for _ in range(2)] == [False, False]
    assert sum(allowance.take(1000.0) for _ in range(9)) == 5
