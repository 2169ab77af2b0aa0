"""Every step of an ending is taken, whatever the others meet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bridged.endings import Ending, take_at_once, take_every_step
from bridged.errors import ShutdownErrors


def refusing(error: Exception) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def test_a_step_that_fails_keeps_no_other_from_being_taken() -> None:
    taken: list[str] = []
    steps = [
        refusing(OSError("gone")),
        lambda: taken.append("second"),
        refusing(ShutdownErrors([ValueError("a"), ValueError("b")])),
        lambda: taken.append("fourth"),
    ]
    with pytest.raises(ShutdownErrors) as met:
        take_every_step(steps)
    assert taken == ["second", "fourth"]
    assert [str(error) for error in met.value.errors] == ["gone", "a", "b"]


def test_the_next_end_takes_what_failed_and_nothing_else() -> None:
    taken: list[str] = []
    problems = [RuntimeError("a fault")]

    async def second() -> None:
        if problems:
            raise problems.pop()
        taken.append("second")

    async def scenario() -> None:
        ending = Ending(lambda: taken.append("first"), second, lambda: taken.append("third"))
        with pytest.raises(ShutdownErrors, match="a fault"):
            await ending.take()
        assert taken == ["first", "third"]
        await ending.take()
        await ending.take()
        assert taken == ["first", "third", "second"]

    asyncio.run(scenario())


def test_a_cancelled_end_is_finished_before_it_says_so() -> None:
    taken: list[str] = []

    async def wait() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        ending = Ending(wait, lambda: taken.append("last"))
        task = asyncio.ensure_future(ending.take())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert taken == ["last"]

    asyncio.run(scenario())


def test_two_who_end_the_same_wait_for_each_other() -> None:
    taken: list[str] = []

    async def step() -> None:
        await asyncio.sleep(0)
        taken.append("once")

    async def scenario() -> None:
        ending = Ending(step)
        await asyncio.gather(ending.take(), ending.take())
        assert taken == ["once"]

    asyncio.run(scenario())


def test_steps_that_are_taken_at_once_wait_for_each_other_and_all_are_taken() -> None:
    taken: list[str] = []
    meeting = asyncio.Barrier(2)

    async def step(name: str) -> None:
        await meeting.wait()
        taken.append(name)

    async def failing() -> None:
        raise ShutdownErrors([OSError("gone"), ValueError("a")])

    async def scenario() -> None:
        with pytest.raises(ShutdownErrors) as met:
            await take_at_once([failing, lambda: step("first"), lambda: step("second")])
        assert sorted(taken) == ["first", "second"]
        assert [str(error) for error in met.value.errors] == ["gone", "a"]

    asyncio.run(scenario())


def test_steps_that_are_cancelled_at_once_are_finished_before_it_says_so() -> None:
    taken: list[str] = []

    async def wait() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        endings = [Ending(wait, lambda: taken.append("last")) for _ in range(2)]
        task = asyncio.ensure_future(take_at_once([ending.take for ending in endings]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert taken == ["last", "last"]

    asyncio.run(scenario())
