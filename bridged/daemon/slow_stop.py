"""Says what an end waits for that takes long, before the service manager kills us."""

from __future__ import annotations

import asyncio
from types import CodeType
from typing import Any, Final

import structlog

from bridged.supervision import SUPERVISOR, Timer

SLOW_SECONDS: Final = 10.0
"""A third of what our systemd units allow."""


class SlowStop:
    """A context manager around the end. After SLOW_SECONDS it logs where each task waits, once."""

    def __init__(self) -> None:
        self._timer: Timer | None = None
        self._log = structlog.get_logger("bridged")

    def __enter__(self) -> None:
        self._timer = SUPERVISOR.after("slow_stop", SLOW_SECONDS, self._tell)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        waiting = sorted(f"{task.get_name()}: {_place(task.get_coro())}" for task in asyncio.all_tasks())
        self._log.warning("stop_takes_long", seconds=SLOW_SECONDS, waiting=waiting)


def _place(waiting: Any) -> str:
    """The functions that wait for each other, outermost first, each with its line."""
    places = []
    while (code := getattr(waiting, "cr_code", None)) is not None:
        places.append(_line(code, waiting.cr_frame))
        waiting = waiting.cr_await
    return " > ".join(places) or type(waiting).__name__


def _line(code: CodeType, frame: Any) -> str:
    return f"{code.co_qualname}:{frame.f_lineno if frame is not None else code.co_firstlineno}"
