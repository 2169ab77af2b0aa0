"""The admin API on its Unix socket, inside the daemon's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn

from bridged.admin.api import RequestCounters, build_api
from bridged.admin.socket import AdminSocketError, open_listener, remove_listener
from bridged.admin.state import AdminState
from bridged.runtime.snapshot import ApiCounters
from bridged.supervision import SUPERVISOR

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
        self._listener: socket.socket | None = None
        self._inode = 0

    async def start(self) -> None:
        """Listen; requests are answered when this returns."""
        self._listener, self._inode = open_listener(self._path)
        self._task = SUPERVISOR.keep("admin_api", self._serve, str(self._path), endless=True)
        try:
            async with asyncio.timeout(START_SECONDS):
                while self._server is None or not self._server.started:
                    await asyncio.sleep(0.005)
        except TimeoutError:
            await self.stop()
            raise AdminSocketError("io_error", f"the API on {self._path} does not start") from None

    async def _serve(self) -> None:
        """Serve until `stop`; what ended otherwise listens anew the next time."""
        if self._listener is None:
            self._listener, self._inode = open_listener(self._path)
        listener, self._listener = self._listener, None
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
        server = self._server = _Server(settings)
        with listener:
            await server.serve(sockets=[listener])
        if not server.should_exit:
            raise AdminSocketError("io_error", "the API has ended")

    async def stop(self) -> None:
        """Answer what is under way (at most GRACE_SECONDS), close, remove the socket's path."""
        if self._task is None:
            return
        server, task = self._server, self._task
        self._server = self._task = None
        # The path first: a client that finds it must get an answer.
        remove_listener(self._path, self._inode)
        if server is not None and server.started:
            server.should_exit = True
        else:
            task.cancel()
        await asyncio.wait({task})

    def counters(self) -> ApiCounters:
        """Requests answered so far; may be called from any thread."""
        return self._counters.snapshot()
