"""Calls into an event loop: from threads, and from the coroutines of other loops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final, TypeVar

SNAPSHOT_SECONDS: Final = 5.0

T = TypeVar("T")


def call_in_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[], Generator[None, None, T]]
) -> Callable[[], T]:
    """Wrap `function` for other threads: its steps run in `loop`, where none sees a half-done change.

    Between two steps the loop does its other work.

    Raises (when called):
        TimeoutError: no result within SNAPSHOT_SECONDS.
        RuntimeError: the loop is closed.
    """

    async def run() -> T:
        steps = function()
        while True:
            try:
                next(steps)
            except StopIteration as done:
                result: T = done.value
                return result
            await asyncio.sleep(0)

    def call() -> T:
        future = _begin(loop, run())
        try:
            return future.result(SNAPSHOT_SECONDS)
        except FutureTimeout:
            future.cancel()
            raise TimeoutError("the event loop does not answer") from None

    return call


def ask_in_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[], str | None]
) -> Callable[[], Awaitable[str | None]]:
    """Wrap `function` for the coroutines of another loop: it runs in `loop`.

    Raises (when awaited):
        TimeoutError: no result within SNAPSHOT_SECONDS.
        RuntimeError: the loop is closed.
    """

    async def run() -> str | None:
        return function()

    async def ask() -> str | None:
        future = _begin(loop, run())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), SNAPSHOT_SECONDS)
        except TimeoutError:
            raise TimeoutError("the event loop does not answer") from None

    return ask


def _begin(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run it in the loop; one that a closed loop refuses is closed, too."""
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise
