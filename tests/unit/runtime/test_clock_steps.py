"""Steps of the wall clock reach the tunnels. A real step is made in tests/vm."""

from __future__ import annotations

import asyncio
import os

import pytest

from bridged.runtime.watchers import clock_steps
from bridged.runtime.watchers.clock_steps import ClockSteps
from tests.lab.waiting import in_time


def test_each_step_is_announced_once_and_the_timer_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[int] = []
    armed: list[int] = []
    offsets = iter((1e9, 1e9 + 60, 1e9 + 60.0005, 5e8))
    monkeypatch.setattr("bridged.runtime.watchers.clock_steps._offset", lambda: next(offsets))

    async def body() -> None:
        steps = ClockSteps(lambda: announced.append(len(armed)))
        descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        steps.watch(descriptor, lambda: armed.append(1))
        for number in (2, 3, 4):
            os.eventfd_write(descriptor, 1)
            async with in_time(5):
                while len(armed) < number:
                    await asyncio.sleep(0)
        steps.close()
        steps.close()
        with pytest.raises(OSError):
            os.fstat(descriptor)

    asyncio.run(body())
    # Set again before it is told: a step meanwhile is not missed. The second wake-up is of the first step.
    assert announced == [2, 4]


def test_the_kernels_timer_can_be_had_and_is_quiet_while_nobody_sets_the_clock() -> None:
    announced: list[None] = []

    async def body() -> None:
        steps = ClockSteps(lambda: announced.append(None))
        steps.start()
        for _ in range(50):
            await asyncio.sleep(0)
        steps.close()

    asyncio.run(body())
    assert announced == []


def test_a_clock_beyond_the_last_second_of_the_timer_costs_no_processor_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a 32-bit machine after January 2038."""
    armed = []
    arm = clock_steps._arm
    monkeypatch.setattr(clock_steps, "LAST_SECOND", 1_000_000_000)
    monkeypatch.setattr(clock_steps, "_arm", lambda *where: (armed.append(where), arm(*where)))

    async def body() -> None:
        steps = ClockSteps(lambda: None)
        steps.start()
        for _ in range(50):
            await asyncio.sleep(0)
        steps.close()

    asyncio.run(body())
    assert len(armed) == 1


def test_a_timer_that_cannot_be_set_is_said_and_closed() -> None:
    def refuse() -> None:
        raise OSError(22, "no")

    async def body() -> None:
        descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        with pytest.raises(OSError):
            ClockSteps(lambda: None).watch(descriptor, refuse)
        with pytest.raises(OSError):
            os.fstat(descriptor)

    asyncio.run(body())
