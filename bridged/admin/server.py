"""The admin API on its Unix socket, inside the daemon's event loop."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path
from typing import Final

from bridged.admin.api import Api, RequestCounters
from bridged.admin.http import HttpServer
from bridged.admin.socket import AdminSocketError, open_listener, remove_listener
from bridged.admin.state import AdminState
from bridged.endings import Ending
from bridged.runtime.snapshot import ApiCounters
from bridged.supervision import SUPERVISOR

GRACE_SECONDS: Final = 1.0
START_SECONDS: Final = 10.0


class AdminServer:
    """Serves the API while the daemon runs. Whoever may open the socket (its owner and root) may do anything.

    `given`: a listener of the service manager, used instead of `socket_path`; path and mode are the manager's
    business. `start` and `stop` belong to one event loop; `stop` is idempotent.

    Raises:
        AdminSocketError: from `start`; see `open_listener`.
    """

    def __init__(self, socket_path: Path, state: AdminState, given: socket.socket | None = None) -> None:
        self._path = socket_path
        self._given = given
        self._counters = RequestCounters()
        self._api = Api(state, self._counters)
        self._listener: socket.socket | None = None
        self._inode = 0
        self._is_serving, self._is_stopping = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; requests are answered as soon as this returns."""
        self._open()
        self._is_stopping.clear()
        self._is_serving.clear()
        self._task = SUPERVISOR.keep("admin_api", self._serve, str(self._path), endless=True)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._is_serving.wait()
        except TimeoutError:
            await self.stop()
            raise AdminSocketError("io_error", f"the API on {self._path} does not start") from None

    def _open(self) -> None:
        if self._given is not None:
            self._listener = self._given.dup()
            self._listener.setblocking(False)
        else:
            self._listener, self._inode = open_listener(self._path)

    async def _serve(self) -> None:
        """Serve until `stop`. After a failure, the next run opens a new listener."""
        if self._listener is None:
            self._open()
        listener, self._listener = self._listener, None
        assert listener is not None
        server = HttpServer(listener, self._api.respond, self._api.refuse)
        with listener:
            try:
                await server.start()
                self._is_serving.set()
                await self._is_stopping.wait()
            finally:
                await server.close(GRACE_SECONDS)

    async def stop(self) -> None:
        """Finish answers (within GRACE_SECONDS), close, and remove the socket's path."""
        task, self._task = self._task, None
        if task is None:
            return
        # The path first: a client that finds it must get an answer.
        await Ending(self._remove_path, partial(self._end, task)).take()

    def _remove_path(self) -> None:
        if self._given is None:
            remove_listener(self._path, self._inode)

    async def _end(self, task: asyncio.Task[None]) -> None:
        if self._is_serving.is_set():
            self._is_stopping.set()
        else:
            task.cancel()
        await asyncio.wait({task})
        if self._given is not None:
            self._given.close()

    def counters(self) -> ApiCounters:
        """Requests answered so far. Thread-safe."""
        return self._counters.snapshot()
