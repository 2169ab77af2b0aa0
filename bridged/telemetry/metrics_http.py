"""The HTTP of /metrics: one event loop, no thread for strangers, and authentication before any work.

A connection gets one of CONNECTIONS_MAX places, HEAD_SECONDS for its request, and ANSWER_SECONDS to read the
answer. If all places are taken, the address (IPv6: the /64) with the most of them loses its oldest one:
neither floods nor slow readers keep other scrapers out. Simultaneous scrapes share one snapshot, and a pause
follows each snapshot: endless scraping takes a fifth of one processor at most.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import ipaddress
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from bridged.supervision import SUPERVISOR
from bridged.telemetry.exposition import CONTENT_TYPE

CONNECTIONS_MAX: Final = 64
BACKLOG: Final = 256
"""Connections that may wait in the kernel."""
TURN: Final = 16
"""Connections accepted in one turn of the loop: far fewer than places, so each is read before it ends."""
HEAD_OCTETS_MAX: Final = 8192
HEAD_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 1.0
LINGER_OCTETS: Final = 1 << 16
PIECE_OCTETS: Final = 1 << 16
GZIP_LEVEL: Final = 1
REST_SHARE: Final = 4
REST_SECONDS_MAX: Final = 1.0
"""The next snapshot waits REST_SHARE times as long as the last one took, at most REST_SECONDS_MAX."""

_METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class MetricsSocket(socket.socket):
    """A socket with a long queue: asyncio would make it as short as TURN, and lose connections."""

    def listen(self, backlog: int = BACKLOG, /) -> None:
        super().listen(max(backlog, BACKLOG))


class MetricsHttp:
    """Serves the result of `render` to clients with the `token` (None: to everybody).

    `render` runs in a thread, never twice at once. `stop` is thread-safe, and may be called before `serve`.
    """

    def __init__(self, render: Callable[[], bytes], token: str | None) -> None:
        self._render = render
        self._expected = None if token is None else f"Bearer {token}".encode()
        # Connection -> the neighbourhood of its client, oldest first.
        self._places: dict[asyncio.StreamWriter, str] = {}
        self._snapshot: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._renderer: ThreadPoolExecutor | None = None
        self._rests_until = 0.0
        self._no_rest = threading.Event()

    async def serve(self, listener: MetricsSocket) -> None:
        """Answer until `stop`; then close `listener` and all connections."""
        self._stopped = asyncio.Event()
        self._snapshot = None
        self._loop = asyncio.get_running_loop()
        SUPERVISOR.watch_loop(self._loop)
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics-render")
        server = await asyncio.start_server(self._handle, sock=listener, limit=HEAD_OCTETS_MAX, backlog=TURN)
        # `stop` sets the flag before it looks for the loop.
        if not self._is_stopping:
            await self._stopped.wait()
        self._loop = None
        server.close()
        for writer in list(self._places):
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._renderer.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        self._is_stopping = True
        self._no_rest.set()
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._stopped.set)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._make_room()
        self._places[writer] = neighbourhood(str((writer.get_extra_info("peername") or ("",))[0]))
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                request = await _read_request(reader)
            async with asyncio.timeout(ANSWER_SECONDS):
                await _write(writer, await self._answer(request))
            async with asyncio.timeout(LINGER_SECONDS):
                # Closing with unread bytes would reset the connection, and lose the end of the answer.
                await reader.read(LINGER_OCTETS)
        except (TimeoutError, OSError, EOFError, asyncio.CancelledError):
            pass  # slow or vanished clients are normal; so is the end of the server
        finally:
            self._places.pop(writer, None)
            # Discards whatever the client did not read in time.
            writer.transport.abort()

    def _make_room(self) -> None:
        if len(self._places) < CONNECTIONS_MAX:
            return
        greedy, _ = Counter(self._places.values()).most_common(1)[0]
        oldest = next(writer for writer, address in self._places.items() if address == greedy)
        del self._places[oldest]
        oldest.transport.abort()

    async def _answer(self, request: _Request | HTTPStatus) -> _Answer:
        if isinstance(request, HTTPStatus):
            return _text(request, request.phrase)
        if not self._is_allowed(request):
            return _text(HTTPStatus.UNAUTHORIZED, "bearer token required", {"WWW-Authenticate": "Bearer"})
        if request.method not in _METHODS:
            return _text(HTTPStatus.NOT_IMPLEMENTED, "only GET and HEAD")
        if request.path.partition("?")[0] != "/metrics":
            return _text(HTTPStatus.NOT_FOUND, "only /metrics")
        try:
            plain, packed = await self._shared_snapshot()
        except Exception as error:
            # The scrape fails visibly (`up` becomes 0); the rest of the daemon is not disturbed.
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"no snapshot: {type(error).__name__}")
        headers = {"Content-Type": CONTENT_TYPE}
        body = plain
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = packed
            headers["Content-Encoding"] = "gzip"
        return _Answer(HTTPStatus.OK, body if request.method == "GET" else b"", headers)

    def _is_allowed(self, request: _Request) -> bool:
        if self._expected is None:
            return True
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        return hmac.compare_digest(given, self._expected)

    async def _shared_snapshot(self) -> tuple[bytes, bytes]:
        if self._snapshot is None or self._snapshot.done():
            self._snapshot = asyncio.get_running_loop().run_in_executor(self._renderer, self._take_snapshot)
            self._snapshot.add_done_callback(self._forget_snapshot)
        # A scraper that leaves must not cancel the snapshot of the others.
        return await asyncio.shield(self._snapshot)

    def _forget_snapshot(self, done: asyncio.Future[tuple[bytes, bytes]]) -> None:
        """Free the snapshot's memory between scrapes; waiting scrapers hold it themselves."""
        if self._snapshot is done:
            self._snapshot = None

    def _take_snapshot(self) -> tuple[bytes, bytes]:
        self._no_rest.wait(max(0.0, self._rests_until - time.monotonic()))
        began = time.monotonic()
        try:
            body = self._render()
            return body, gzip.compress(body, GZIP_LEVEL)
        finally:
            now = time.monotonic()
            self._rests_until = now + min(REST_SECONDS_MAX, REST_SHARE * (now - began))


def neighbourhood(address: str) -> str:
    """The addresses that one sender can easily have: an IPv4 address, or an IPv6 /64."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


async def _read_request(reader: asyncio.StreamReader) -> _Request | HTTPStatus:
    """Read the request's head; return it, or the status that refuses it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return HTTPStatus.BAD_REQUEST
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return _Request(words[0], words[1], headers)


async def _write(writer: asyncio.StreamWriter, answer: _Answer) -> None:
    headers = {
        "Server": "bridged",
        "Content-Type": "text/plain; charset=utf-8",
        **answer.headers,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    # A piece at a time: a slow reader holds one piece, not a copy of everything.
    writer.transport.set_write_buffer_limits(0)
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    for start in range(0, len(answer.body), PIECE_OCTETS):
        writer.write(answer.body[start : start + PIECE_OCTETS])
        await writer.drain()
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _text(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(status, f"{text}\n".encode(), headers or {})
