"""The daemon's way down goes on to its end, whatever one of its steps meets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from bridged.configuration import load
from bridged.daemon import Daemon, slow_stop
from bridged.errors import NetlinkError, ShutdownErrors
from tests.lab.waiting import until

CONFIGURATION = """\
bridges: {br0: {}}
tunnels:
  main: {role: server, bridge: br0, tls: {embedded: true}, wrap: {mode: tls-crypt}}
"""


@pytest.mark.parametrize(
    "error",
    [OSError("gone"), RuntimeError("a fault"), ShutdownErrors([NetlinkError("delete", "br0", 16)])],
)
def test_a_step_that_fails_does_not_keep_the_others_from_being_taken(
    tmp_path: Path, error: Exception
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(CONFIGURATION)

    class Ended(Daemon):
        """A start that makes three things, the second of which cannot be taken back."""

        async def _start(self) -> None:
            self._undo += [lambda: taken.append("first"), refuse, lambda: taken.append("third")]
            self._stop.set()

    def refuse() -> None:
        raise error

    taken: list[str] = []
    assert asyncio.run(Ended(load(path), path, None).run()) == 1
    assert taken == ["third", "first"]


def test_an_end_that_takes_long_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_stop, "SLOW_SECONDS", 0.05)
    path = tmp_path / "site.yaml"
    path.write_text(CONFIGURATION)

    class Hanging(Daemon):
        """A start that makes one thing, which waits for the log before it ends."""

        async def _start(self) -> None:
            self._undo += [wait_for_the_log]
            self._stop.set()

    async def wait_for_the_log() -> None:
        await until(lambda: [line for line in logged if line["event"] == "stop_takes_long"])

    with structlog.testing.capture_logs() as logged:
        assert asyncio.run(Hanging(load(path), path, None).run()) == 0
    (line,) = [line for line in logged if line["event"] == "stop_takes_long"]
    assert any("_take_down" in task and "wait_for_the_log" in task for task in line["waiting"]), line
