"""Tells the service manager how the daemon is: ready, reloading, stopping, a line of status, signs of life.

Source: sd_notify(3), systemd.service(5) (WatchdogSec=). Asyncio.
The manager restarts us if signs of life fail to come. One is sent only if the event loop runs this and every
thread of every data plane has answered since the one before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import structlog

from bridged.runtime.service.manager import ServiceManager, monotonic_microseconds
from bridged.supervision import SUPERVISOR, Timer

STATUS_SECONDS: Final = 5.0
"""Shortest time between two lines of status."""
ASKS_PER_WATCHDOG: Final = 4


class Threads(Protocol):
    """What the watchdog needs of a data plane; see `DataPlane`."""

    def ask_threads(self) -> None: ...

    def silent_threads(self) -> tuple[str, ...]: ...


class Reporter:
    """One for each daemon. `describe` gives the line of status, `planes` the data planes by tunnel."""

    def __init__(
        self,
        manager: ServiceManager,
        describe: Callable[[], str],
        planes: Callable[[], Mapping[str, Threads]],
        environment: Mapping[str, str],
    ) -> None:
        self._manager = manager
        self._describe = describe
        self._planes = planes
        self._watchdog_seconds = watchdog_seconds(environment)
        self._asked: dict[str, Threads] = {}
        self._silent: tuple[str, ...] = ()
        self._status = ""
        self._rejection = ""
        self._timers: list[Timer] = []
        self._log = structlog.get_logger("bridged.service")

    def start(self) -> None:
        """The daemon works: say so, and go on reporting."""
        if not self._manager.is_present:
            return
        self._status = self._line()
        self._manager.tell("READY=1", f"STATUS={self._status}")
        self._timers.append(SUPERVISOR.every("service_status", STATUS_SECONDS, self._report_status))
        if self._watchdog_seconds:
            self._show_life()
            period = self._watchdog_seconds / ASKS_PER_WATCHDOG
            self._timers.append(SUPERVISOR.every("watchdog", period, self._show_life))

    def begin_reload(self) -> None:
        self._manager.tell("RELOADING=1", monotonic_microseconds(), "STATUS=Reloading the configuration")

    def end_reload(self, rejection: str) -> None:
        """`rejection`: why the configuration was not taken; empty: it was."""
        self._rejection = f"; reload rejected: {one_line(rejection)}" if rejection else ""
        self._status = self._line()
        self._manager.tell("READY=1", f"STATUS={self._status}")

    def begin_stop(self) -> None:
        """Idempotent."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._manager.tell("STOPPING=1", "STATUS=Stopping")

    def _report_status(self) -> None:
        status = self._line()
        if status != self._status:
            self._status = status
            self._manager.tell(f"STATUS={status}")

    def _line(self) -> str:
        return self._describe() + self._rejection

    def _show_life(self) -> None:
        planes = self._planes()
        silent = tuple(
            f"{tunnel}/{thread}"
            for tunnel, plane in self._asked.items()
            if planes.get(tunnel) is plane
            for thread in plane.silent_threads()
        )
        if silent and silent != self._silent:
            self._log.error("threads_silent", threads=list(silent), seconds=self._watchdog_seconds)
        self._silent = silent
        if not silent:
            self._manager.tell("WATCHDOG=1")
            self._asked = dict(planes)
            for plane in self._asked.values():
                plane.ask_threads()


def watchdog_seconds(environment: Mapping[str, str]) -> float:
    """How often the manager wants a sign of life; 0: never."""
    owner = environment.get("WATCHDOG_PID", str(os.getpid()))
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() and owner == str(os.getpid()) else 0.0


def status_line(tunnels: int, peers: int, undone: Iterable[str] = ()) -> str:
    """`2 tunnels, 14 peers`, and what is wrong."""
    words = [f"{tunnels} tunnel{'s' * (tunnels != 1)}", f"{peers} peer{'s' * (peers != 1)}"]
    wrong = sorted(set(undone))
    if wrong:
        words.append(f"not done: {' '.join(wrong)}")
    return ", ".join(words)


def one_line(text: str) -> str:
    """Printable, without line ends, 200 characters at most."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in line)[:200]
