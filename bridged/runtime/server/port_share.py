"""Hands what is no OpenVPN on to another server, such as a web server on port 443.

Source: OpenVPN's manual page, `--port-share`. Asyncio. SHARED_MAX connections at once, with little memory.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import Final

from bridged.addresses import Endpoint
from bridged.supervision import SUPERVISOR

SHARED_MAX: Final = 256
CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 600.0
"""A connection in which nothing moves for this long is closed."""
READ_OCTETS: Final = 64 * 1024


class PortShare:
    """Connections that were handed on to `target`, until `close`."""

    def __init__(self, target: Endpoint) -> None:
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def take(self, connection: socket.socket, octets: bytes) -> bool:
        """Hand a connection on, of which `octets` were read; False if there are too many."""
        if len(self._tasks) >= SHARED_MAX:
            return False
        # A connection that failed is closed: serving it again ends at once.
        task = SUPERVISOR.keep("port_share", partial(self._serve, connection, octets), str(self._target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def close(self) -> None:
        """End all. Idempotent."""
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, connection: socket.socket, octets: bytes) -> None:
        writers: list[asyncio.StreamWriter] = []
        # What either end or the network does ends this connection, and nothing else.
        with suppress(OSError, TimeoutError):
            try:
                near, to_near = await asyncio.open_connection(sock=connection, limit=READ_OCTETS)
                writers.append(to_near)
                async with asyncio.timeout(CONNECT_SECONDS):
                    far, to_far = await asyncio.open_connection(
                        self._target.host, self._target.port, limit=READ_OCTETS
                    )
                writers.append(to_far)
                to_far.write(octets)
                await asyncio.gather(_pass_on(near, to_far), _pass_on(far, to_near))
            finally:
                connection.close()
                for writer in writers:
                    writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one end says that it sends no more."""
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            octets = await reader.read(READ_OCTETS)
            if not octets:
                break
            writer.write(octets)
            await writer.drain()
    # What was written leaves before the end.
    writer.write_eof()
