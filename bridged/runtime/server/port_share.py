"""Hands what is no OpenVPN on to another server, such as a web server on port 443.

Source: OpenVPN's manual page, `--port-share`. Asyncio. SHARED_MAX connections at once, with little memory.
When all places are taken, the oldest connection of the network that has most gives way.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import Final

from bridged.addresses import Endpoint
from bridged.runtime.server.connection_shares import ConnectionShares
from bridged.supervision import SUPERVISOR

SHARED_MAX: Final = 256
CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 600.0
"""A connection in which nothing moves for this long is closed."""
READ_OCTETS: Final = 16 * 1024
BUFFER_OCTETS: Final = 32 * 1024
"""Bytes that the kernel keeps for each end each way; it takes as much again for itself."""
SENDING_OCTETS: Final = 64 * 1024
"""The same for what is sent to the stranger: web servers send more than they get."""


class PortShare:
    """Connections that were handed on to `target`, until `close`."""

    def __init__(self, target: Endpoint) -> None:
        self._target = target
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}
        self._shares = ConnectionShares[Endpoint](SHARED_MAX)

    def __len__(self) -> int:
        return len(self._tasks)

    def take(self, connection: socket.socket, octets: bytes, endpoint: Endpoint) -> bool:
        """Hand on what came from `endpoint`, of which `octets` were read; False if there are too many."""
        if endpoint in self._tasks:
            return False
        loop = asyncio.get_running_loop()
        gives_way = self._shares.enter(endpoint, loop.time())
        if gives_way == endpoint:
            return False
        if gives_way is not None:
            self._tasks[gives_way].cancel()
        # A connection that failed is closed: serving it again ends at once.
        task = SUPERVISOR.keep("port_share", partial(self._serve, connection, octets), str(self._target))
        self._tasks[endpoint] = task
        task.add_done_callback(partial(self._note_end, endpoint, connection))
        return True

    def close(self) -> None:
        """End all. Idempotent."""
        for task in list(self._tasks.values()):
            task.cancel()

    def _note_end(self, endpoint: Endpoint, connection: socket.socket, _: asyncio.Task[None]) -> None:
        # One that was cancelled before its first step has closed nothing.
        connection.close()
        del self._tasks[endpoint]
        self._shares.leave(endpoint)

    async def _serve(self, connection: socket.socket, octets: bytes) -> None:
        writers: list[asyncio.StreamWriter] = []
        # What either end or the network does ends this connection, and nothing else.
        with suppress(OSError, TimeoutError):
            try:
                _bound(connection, SENDING_OCTETS)
                near, to_near = await asyncio.open_connection(sock=connection, limit=READ_OCTETS)
                writers.append(to_near)
                async with asyncio.timeout(CONNECT_SECONDS):
                    far, to_far = await asyncio.open_connection(
                        self._target.host, self._target.port, limit=READ_OCTETS
                    )
                writers.append(to_far)
                _bound(to_far.get_extra_info("socket"), BUFFER_OCTETS)
                for writer in writers:
                    writer.transport.set_write_buffer_limits(READ_OCTETS)
                to_far.write(octets)
                async with asyncio.timeout(IDLE_SECONDS) as idle:
                    await asyncio.gather(_pass_on(near, to_far, idle), _pass_on(far, to_near, idle))
            finally:
                connection.close()
                for writer in writers:
                    writer.transport.abort()


def _bound(connection: socket.socket, sending: int) -> None:
    """Have the kernel keep little for it: whoever does not read must not fill memory."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sending)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
    """Until one end says that it sends no more. Whatever moves puts `idle`, which both ways share, off."""
    while octets := await reader.read(READ_OCTETS):
        idle.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)
        writer.write(octets)
        await writer.drain()
    # What was written leaves before the end.
    writer.write_eof()
