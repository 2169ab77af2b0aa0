"""A daemon that answers the commands from a thread of the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridged.admin.server import AdminServer
from bridged.runtime.snapshot import DaemonSnapshot, ReloadStatus
from tests.lab.snapshots import daemon

GOOD = """\
bridges: {br0: {ports: [eth1]}}
tunnels:
  main: {role: server, bridge: br0, tls: {embedded: true}, wrap: {mode: tls-crypt}}
"""


class State:
    def __init__(self, snapshot: DaemonSnapshot) -> None:
        self.current = snapshot
        self.confirmed = 0
        self.reloaded = ReloadStatus()

    def snapshot(self) -> DaemonSnapshot:
        return self.current

    def confirm(self) -> bool:
        self.confirmed += 1
        return self.confirmed == 1

    async def reload(self) -> ReloadStatus:
        return self.reloaded

    def fdb(self, tunnel: str) -> list[object]:
        return []

    def static_stations(self, tunnel: str) -> list[object]:
        return []


@contextmanager
def running(folder: Path, snapshot: DaemonSnapshot | None = None) -> Iterator[tuple[Path, State]]:
    """A configuration whose daemon answers (from a thread of this process)."""
    config = folder / "bridged.yaml"
    config.write_text(GOOD + "admin: {socket: api.sock}\n")
    state = State(snapshot or daemon())
    loop = asyncio.new_event_loop()
    server = AdminServer(folder / "api.sock", state)
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield config, state
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
