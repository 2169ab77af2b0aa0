"""Ends things step by step: a step that fails keeps no other from being taken.

Errors come together at the end, as one `ShutdownErrors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

from bridged.errors import ShutdownErrors

Step: TypeAlias = Callable[[], Any]


def take_every_step(steps: Iterable[Step]) -> None:
    """Take each step, in order.

    Raises:
        ShutdownErrors: what failed.
    """
    errors: list[BaseException] = []
    for step in steps:
        try:
            step()
        except Exception as error:
            _note(errors, error)
    if errors:
        raise ShutdownErrors(errors)


async def take_at_once(steps: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Take steps that wait at the same time. If cancelled, this ends when the last of them has.

    Raises:
        ShutdownErrors: what failed.
    """
    errors: list[BaseException] = []
    for result in await asyncio.gather(*(step() for step in steps), return_exceptions=True):
        if isinstance(result, asyncio.CancelledError):
            raise result
        if isinstance(result, Exception):
            _note(errors, result)
    if errors:
        raise ShutdownErrors(errors)


class Ending:
    """The steps by which something ends, plain or asynchronous ones.

    A step that failed is taken again when somebody asks for the end again; a step that succeeded is not.
    """

    def __init__(self, *steps: Step) -> None:
        self._left = list(steps)
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Take each step that is left, in order. If cancelled, the rest is still done before this ends.

        Raises:
            ShutdownErrors: what failed.
        """
        async with self._lock:
            errors: list[BaseException] = []
            failed: list[Step] = []
            cancelled: asyncio.CancelledError | None = None
            for step in self._left:
                try:
                    result = step()
                    if isinstance(result, Awaitable):
                        await result
                except asyncio.CancelledError as error:
                    failed.append(step)
                    cancelled = error
                except Exception as error:
                    failed.append(step)
                    _note(errors, error)
            self._left = failed
        if cancelled is not None:
            raise cancelled
        if errors:
            raise ShutdownErrors(errors)


def _note(errors: list[BaseException], error: Exception) -> None:
    errors.extend(error.errors if isinstance(error, ShutdownErrors) else (error,))
