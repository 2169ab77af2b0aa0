"""The admin API on its Unix socket, inside the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn

from bridged.admin.api import RequestCounters, build_api
from bridged.admin.socket import AdminSocketError, open_listener, remove_listener
from bridged.admin.state import AdminState
from bridged.runtime.snapshot import ApiCounters

CONNECTIONS_MAX: Final = 64
GRACE_SECONDS: Final = 1
START_SECONDS: Final = 10.0


class _Server(uvicorn.Server):
    """Leaves the signals to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AdminServer:
    """Serves the API while the daemon runs. Whoever may open the socket (its owner and root) may do all.

    `start` and `stop` belong to one event loop; `stop` is idempotent.

    Raises:
        AdminSocketError: from `start`; see `open_listener`.
    """

    def __init__(self, socket_path: Path, state: AdminState) -> None:
        self._path = socket_path
        self._counters = RequestCounters()
        self._api = build_api(state, self._counters)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._inode = 0

    async def start(self) -> None:
        """Listen; requests are answered when this returns."""
        listener, self._inode = open_listener(self._path)
        settings = uvicorn.Config(
            self._api,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            server_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._server = _Server(settings)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="admin-api")
        try:
            async with asyncio.timeout(START_SECONDS):
                while not self._server.started and not self._task.done():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            await self.stop()
            raise AdminSocketError("io_error", f"the API on {self._path} does not start") from None
        if self._task.done():
            error = self._task.exception()
            await self.stop()
            raise AdminSocketError("io_error", f"the API on {self._path} does not start: {error}")

    async def stop(self) -> None:
        """Answer what is under way (at most GRACE_SECONDS), close, remove the socket's path."""
        if self._server is None or self._task is None:
            return
        server, task = self._server, self._task
        self._server = self._task = None
        # The path first: a client that finds it must get an answer.
        remove_listener(self._path, self._inode)
        server.should_exit = True
        with contextlib.suppress(Exception):
            await task

    def counters(self) -> ApiCounters:
        """Requests answered so far; may be called from any thread."""
        return self._counters.snapshot()
