"""The HTTP of /metrics: one event loop, no thread for strangers, and authentication before any work.

A connection gets one of CONNECTIONS_MAX places, HEAD_SECONDS for TLS and its request, and ANSWER_SECONDS to
be answered and to read the answer. If all places are taken, the address (IPv6: the /64) with the most of them
loses its oldest one: neither floods nor slow readers keep other scrapers out. Simultaneous scrapes share one
snapshot, and a pause follows each snapshot: endless scraping takes a fifth of one processor at most.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import ipaddress
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Final

from bridged.supervision import SUPERVISOR
from bridged.telemetry.exposition import CONTENT_TYPE
from bridged.telemetry.http_messages import (
    HEAD_OCTETS_MAX,
    MetricsAnswer,
    MetricsRequest,
    read_request,
    text,
    write_answer,
)
from bridged.telemetry.web_access import WebAccess

CONNECTIONS_MAX: Final = 64
BACKLOG: Final = 256
"""Connections that may wait in the kernel."""
TURN: Final = 16
"""Connections accepted in one turn of the loop: far fewer than places, so each is read before it ends."""
HEAD_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 1.0
LINGER_OCTETS: Final = 1 << 16
PAUSE_SECONDS: Final = 1.0
"""After a connection that could not be accepted: the process has no descriptor to spare."""
GZIP_LEVEL: Final = 1
REST_SHARE: Final = 4
REST_SECONDS_MAX: Final = 1.0
"""The next snapshot waits REST_SHARE times as long as the last one took, at most REST_SECONDS_MAX."""

_METHODS: Final = ("GET", "HEAD")

HealthProbe = Callable[[], Awaitable[str | None]]
"""Answers what is wrong; None: nothing. It may also raise."""


class MetricsSocket(socket.socket):
    """A socket with a long queue."""

    def listen(self, backlog: int = BACKLOG, /) -> None:
        super().listen(max(backlog, BACKLOG))


class MetricsHttp:
    """Serves `pages`, path -> what makes the text, to clients that `access` allows.

    Pages are made in a thread, never two at once. `probes`: path -> what answers 200 or 503. `stop` is
    thread-safe, and may be called before `serve`.
    """

    def __init__(
        self,
        pages: Mapping[str, Callable[[], bytes]],
        access: WebAccess,
        probes: Mapping[str, HealthProbe] | None = None,
    ) -> None:
        self._pages = pages
        self._access = access
        self._probes = probes or {}
        # Connection -> the neighbourhood of its client, oldest first.
        self._places: dict[asyncio.Task[None], str] = {}
        self._snapshots: dict[str, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._renderer: ThreadPoolExecutor | None = None
        self._rests_until = 0.0
        self._no_rest = threading.Event()

    async def serve(self, listener: MetricsSocket) -> None:
        """MetricsAnswer until `stop`; then close `listener` and all connections."""
        self._stopped = asyncio.Event()
        self._snapshots = {}
        self._loop = loop = asyncio.get_running_loop()
        SUPERVISOR.watch_loop(loop)
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics-render")
        self._accept_from(listener)
        # `stop` sets the flag before it looks for the loop.
        if not self._is_stopping:
            await self._stopped.wait()
        self._loop = None
        loop.remove_reader(listener)
        listener.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._renderer.shutdown(wait=False, cancel_futures=True)
        self._access.close()

    def stop(self) -> None:
        self._is_stopping = True
        self._no_rest.set()
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._stopped.set)

    # --- connections ------------------------------------------------------------------------------

    def _accept_from(self, listener: MetricsSocket) -> None:
        guarded = SUPERVISOR.guard("metrics_accept", self._accept)
        asyncio.get_running_loop().add_reader(listener, guarded, listener)

    def _accept(self, listener: MetricsSocket) -> None:
        for _ in range(TURN):
            try:
                connection, source = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                asyncio.get_running_loop().remove_reader(listener)
                SUPERVISOR.after("metrics_accept", PAUSE_SECONDS, lambda: self._accept_from(listener))
                raise
            connection.setblocking(False)
            self._give_place(connection, neighbourhood(str(source[0])))

    def _give_place(self, connection: socket.socket, where: str) -> None:
        self._make_room()
        task = SUPERVISOR.keep("metrics_connection", lambda: self._handle(connection, where))
        self._places[task] = where
        task.add_done_callback(lambda done: self._leave(done, connection))

    def _leave(self, task: asyncio.Task[None], connection: socket.socket) -> None:
        self._places.pop(task, None)
        # A task that was cancelled before its first step has handed the socket to nobody.
        connection.close()

    def _make_room(self) -> None:
        if len(self._places) < CONNECTIONS_MAX:
            return
        greedy, _ = Counter(self._places.values()).most_common(1)[0]
        oldest = next(task for task, address in self._places.items() if address == greedy)
        del self._places[oldest]
        oldest.cancel()

    async def _handle(self, connection: socket.socket, where: str) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                reader, writer = await self._open(connection)
                request = await read_request(reader)
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._answer(request, where, writer.get_extra_info("peercert"))
                await write_answer(writer, answer, self._access.headers)
            async with asyncio.timeout(LINGER_SECONDS):
                if writer.get_extra_info("ssl_object") is not None:
                    writer.close()
                    await writer.wait_closed()
                else:
                    # Closing with unread bytes would reset the connection, and lose the end of the answer.
                    await reader.read(LINGER_OCTETS)
        except (TimeoutError, OSError, EOFError):
            pass  # slow or vanished clients are normal, and so are those that do not speak TLS
        finally:
            # Discards whatever the client did not read in time.
            if writer is not None:
                writer.transport.abort()

    async def _open(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        context = self._access.tls()
        reader = asyncio.StreamReader(HEAD_OCTETS_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        limit = None if context is None else HEAD_SECONDS
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=context, ssl_handshake_timeout=limit
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    # --- answers ----------------------------------------------------------------------------------

    async def _answer(
        self, request: MetricsRequest | HTTPStatus, where: str, certificate: Mapping[str, Any] | None
    ) -> MetricsAnswer:
        if isinstance(request, HTTPStatus):
            return text(request, request.phrase)
        if self._access.refuses_certificate(certificate):
            return text(HTTPStatus.FORBIDDEN, "the certificate has none of client_allowed_sans")
        if not await self._access.allows(request.headers.get("authorization", ""), where):
            asked = {"WWW-Authenticate": self._access.challenge()}
            return text(HTTPStatus.UNAUTHORIZED, "authentication required", asked)
        if request.method not in _METHODS:
            return text(HTTPStatus.NOT_IMPLEMENTED, "only GET and HEAD")
        path = request.path.partition("?")[0]
        if path in self._probes:
            return await _probed(self._probes[path])
        if path not in self._pages:
            return text(HTTPStatus.NOT_FOUND, f"only {', '.join([*self._pages, *self._probes])}")
        return await self._page(path, request)

    async def _page(self, path: str, request: MetricsRequest) -> MetricsAnswer:
        try:
            plain, packed = await self._shared_snapshot(path)
        except Exception as error:
            # The scrape fails visibly (`up` becomes 0); the rest of the daemon is not disturbed.
            return text(HTTPStatus.SERVICE_UNAVAILABLE, f"no snapshot: {type(error).__name__}")
        headers = {"Content-Type": CONTENT_TYPE}
        body = plain
        if "gzip" in request.headers.get("accept-encoding", ""):
            body = packed
            headers["Content-Encoding"] = "gzip"
        return MetricsAnswer(HTTPStatus.OK, body if request.method == "GET" else b"", headers)

    async def _shared_snapshot(self, path: str) -> tuple[bytes, bytes]:
        snapshot = self._snapshots.get(path)
        if snapshot is None or snapshot.done():
            run = asyncio.get_running_loop().run_in_executor
            snapshot = self._snapshots[path] = run(self._renderer, self._take_snapshot, path)
            snapshot.add_done_callback(lambda done: self._forget_snapshot(path, done))
        # A scraper that leaves must not cancel the snapshot of the others.
        return await asyncio.shield(snapshot)

    def _forget_snapshot(self, path: str, done: asyncio.Future[tuple[bytes, bytes]]) -> None:
        """Free the snapshot's memory between scrapes; waiting scrapers hold it themselves."""
        if self._snapshots.get(path) is done:
            del self._snapshots[path]

    def _take_snapshot(self, path: str) -> tuple[bytes, bytes]:
        self._no_rest.wait(max(0.0, self._rests_until - time.monotonic()))
        began = time.monotonic()
        # The samples of a thousand peers would set off full collections, which stop every thread.
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            body = self._pages[path]()
            return body, gzip.compress(body, GZIP_LEVEL)
        finally:
            if was_enabled:
                gc.enable()
            now = time.monotonic()
            self._rests_until = now + min(REST_SECONDS_MAX, REST_SHARE * (now - began))


async def _probed(probe: HealthProbe) -> MetricsAnswer:
    try:
        wrong = await probe()
    except Exception as error:
        wrong = str(error) or type(error).__name__
    return text(HTTPStatus.OK, "OK") if wrong is None else text(HTTPStatus.SERVICE_UNAVAILABLE, wrong)


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
