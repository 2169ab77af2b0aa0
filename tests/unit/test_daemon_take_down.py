"""The daemon's way down goes on to its end, whatever one of its steps meets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridged.configuration import load
from bridged.daemon import Daemon
from bridged.errors import NetlinkError, ShutdownErrors

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
