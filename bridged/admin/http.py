"""A small HTTP/1.1 server on one socket, in the event loop that starts it, for a few local clients.

It ignores the body of a request. Limits: CONNECTIONS_MAX connections, HEAD_OCTETS_MAX bytes of a request's
head, BODY_OCTETS_MAX of its body, IDLE_SECONDS without a whole request, and as long until an answer is read.

Source: RFC 9110 (methods, status codes), RFC 9112 (framing, keeping a connection).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote

CONNECTIONS_MAX: Final = 64
HEAD_OCTETS_MAX: Final = 16 * 1024
BODY_OCTETS_MAX: Final = 64 * 1024
IDLE_SECONDS: Final = 30.0
REFUSAL_SECONDS: Final = 1.0


class BadRequest(Exception):
    """Not a request that this server accepts; the connection ends after the answer."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """Method, path without query, and the query's values by name (the last value of a name counts)."""

    method: str
    path: str
    query: dict[str, str]
    keeps: bool


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer: JSON in UTF-8. `headers` are sent in addition to type, length and connection."""

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Respond = Callable[[Request], Awaitable[HttpAnswer]]
"""Never raises."""
Refuse = Callable[[HTTPStatus, str], HttpAnswer]
"""Gives the answer to something that is not a request."""


class HttpServer:
    """Serves `listener` until `close`. `respond` answers requests, `refuse` everything else."""

    def __init__(self, listener: socket.socket, respond: Respond, refuse: Refuse) -> None:
        self._listener = listener
        self._respond = respond
        self._refuse = refuse
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], bool] = {}
        """Open connections, and whether each is answering a request."""
        self._is_closing = False

    async def start(self) -> None:
        """Accept connections; requests are answered as soon as this returns."""
        self._server = await asyncio.start_unix_server(
            self._connected, sock=self._listener, limit=HEAD_OCTETS_MAX
        )

    async def close(self, grace_seconds: float) -> None:
        """Accept nobody any more, finish answers within `grace_seconds`, and end all connections."""
        self._is_closing = True
        if self._server is not None:
            self._server.close()
        for task, is_busy in list(self._connections.items()):
            if not is_busy:
                task.cancel()
        if self._connections:
            _, late = await asyncio.wait(set(self._connections), timeout=grace_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= 2 * CONNECTIONS_MAX:
            writer.close()
            return
        # What was drained is with the client: an idle connection may be cut off.
        writer.transport.set_write_buffer_limits(0)
        is_full = len(self._connections) >= CONNECTIONS_MAX
        self._connections[task] = False
        try:
            if is_full:
                # Closing with an unread request would reset the connection, and lose the answer.
                with contextlib.suppress(BadRequest):
                    async with asyncio.timeout(REFUSAL_SECONDS):
                        await _read_request(reader)
                await _send(
                    writer, self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"), False
                )
            else:
                await self._converse(task, reader, writer)
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            # The client left, says or reads nothing, or the server stops: it may never read what waits.
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            del self._connections[task]

    async def _converse(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        keeps = True
        while keeps and not self._is_closing:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    request = await _read_request(reader)
            except BadRequest as error:
                await _send(writer, self._refuse(error.status, str(error)), False)
                return
            self._connections[task] = True
            answer = await self._respond(request)
            keeps = request.keeps and not self._is_closing
            await _send(writer, answer, keeps, with_body=request.method != "HEAD")
            self._connections[task] = False


async def _read_request(reader: asyncio.StreamReader) -> Request:
    """Read the next request; skip its body.

    Raises:
        BadRequest: not a request, or larger than allowed.
        EOFError: the client left.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise BadRequest(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too long"
        ) from None
    lines = head.decode("latin-1").split("\r\n")
    method, target, version = _request_line(lines[0])
    fields = _fields(lines[1:])
    if "transfer-encoding" in fields:
        raise BadRequest(HTTPStatus.LENGTH_REQUIRED, "a body needs Content-Length")
    length = fields.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
    if len(length) > 9 or int(length) > BODY_OCTETS_MAX:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
    await reader.readexactly(int(length))
    path, _, query = target.partition("?")
    tokens = {token.strip() for token in fields.get("connection", "").lower().split(",")}
    keeps = "close" not in tokens and (version == "HTTP/1.1" or "keep-alive" in tokens)
    return Request(method, unquote(path), dict(parse_qsl(query, keep_blank_values=True)), keeps)


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not parts[0].isalpha() or not parts[1].startswith("/"):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "not an HTTP request")
    if parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.0 and HTTP/1.1 only")
    return parts[0], parts[1], parts[2]


def _fields(lines: list[str]) -> dict[str, str]:
    """Header fields by lower-case name. Two different lengths are refused: they would be ambiguous."""
    fields: dict[str, str] = {}
    for line in filter(None, lines):
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if not colon or not name or name != name.strip():
            raise BadRequest(HTTPStatus.BAD_REQUEST, "not a header field")
        if name == "content-length" and fields.get(name, value) != value:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "two values of Content-Length")
        fields[name] = value
    return fields


async def _send(
    writer: asyncio.StreamWriter, answer: HttpAnswer, keeps: bool, *, with_body: bool = True
) -> None:
    """Returns when the client has it all.

    Raises:
        TimeoutError: it did not read for IDLE_SECONDS.
    """
    head = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(answer.body)}",
        f"Connection: {'keep-alive' if keeps else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    writer.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + (answer.body if with_body else b""))
    async with asyncio.timeout(IDLE_SECONDS):
        await writer.drain()
