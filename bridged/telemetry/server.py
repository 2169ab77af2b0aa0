"""/metrics over HTTP, in threads of its own, so that a slow scraper costs the daemon nothing.

At most CONNECTIONS_MAX connections: one more closes the oldest. Answers GET and HEAD of /metrics only.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import ipaddress
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry

from bridged.addresses import Endpoint
from bridged.errors import BridgedError
from bridged.supervision import SUPERVISOR
from bridged.telemetry.exposition import CONTENT_TYPE, render

CONNECTIONS_MAX: Final = 8
IDLE_SECONDS: Final = 10.0
SNAPSHOT_SECONDS: Final = 5.0
TOKEN_OCTETS_MAX: Final = 4096
GZIP_LEVEL: Final = 1
REFUSED_PAUSE_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 3600.0
"""A connection or the end wakes the server; it need not look by itself."""

T = TypeVar("T")


class MetricsServerError(BridgedError):
    """/metrics cannot be served: `in_use`, `bad_token`, `io_error`."""


def read_bearer_token(path: Path) -> str:
    """The token in `path`: one line of printable ASCII, white space around it left out.

    Raises:
        MetricsServerError: the file cannot be read, or holds no token.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(TOKEN_OCTETS_MAX + 1)
    except OSError as error:
        text = f"metrics.bearer_token_file {path}: {error.strerror or error}"
        raise MetricsServerError("bad_token", text) from error
    token = content.strip()
    if not token or len(content) > TOKEN_OCTETS_MAX or not all(33 <= octet <= 126 for octet in token):
        text = f"metrics.bearer_token_file {path}: expected one line of printable ASCII without spaces"
        raise MetricsServerError("bad_token", text)
    return token.decode("ascii")


def call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> Callable[[], T]:
    """`function`, to be called from another thread, but run in `loop`: snapshots see no half-done change.

    The caller waits at most SNAPSHOT_SECONDS (TimeoutError); a closed loop is a RuntimeError.
    """

    async def run() -> T:
        return function()

    def call() -> T:
        coroutine = run()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return future.result(SNAPSHOT_SECONDS)
        except FutureTimeout:
            future.cancel()
            raise TimeoutError("the event loop does not answer") from None

    return call


class MetricsServer:
    """Serves `registry` on `listen` (host:port); `token`: asked of every client as `Bearer`.

    Raises:
        MetricsServerError: from `start`, when the address is taken or not ours.
    """

    def __init__(self, listen: Endpoint, registry: CollectorRegistry, token: str | None = None) -> None:
        self._listen = listen
        self._registry = registry
        self._token = token
        self._http: _HttpServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it listens; None before `start`."""
        if self._http is None:
            return None
        host, port = self._http.server_address[:2]
        return Endpoint.of(str(host), int(port))

    def start(self) -> None:
        """Bind and serve; scrapes are answered when this returns."""
        try:
            self._http = _HttpServer(self._listen, self._registry, self._token)
        except OSError as error:
            code = "in_use" if error.errno == 98 else "io_error"
            text = f"cannot serve metrics on {self._listen}: {error.strerror or error}; set metrics.listen"
            raise MetricsServerError(code, text) from error
        http = self._http
        self._thread = SUPERVISOR.thread(
            *("metrics_server", lambda: http.serve_forever(LOOK_SECONDS)),
            name="metrics",
            is_wanted=lambda: self._http is http,
        )

    def stop(self) -> None:
        """Close the port and all connections. Idempotent; call it from another thread than a scrape's."""
        http, thread = self._http, self._thread
        self._http = self._thread = None
        if http is None or thread is None:
            return
        http.shutdown()
        thread.join()
        http.server_close()


class _HttpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, listen: Endpoint, registry: CollectorRegistry, token: str | None) -> None:
        self.registry = registry
        self.expected = None if token is None else f"Bearer {token}".encode()
        self._connections: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        self.address_family = _family(listen.host)
        super().__init__((listen.host, listen.port), _Handler)

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # Out of descriptors, the connection stays at the door: do not ask again at once, for ever.
            time.sleep(REFUSED_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make room for a connection by closing the oldest one, so that idle ones cannot lock others out."""
        with self._lock:
            while len(self._connections) >= CONNECTIONS_MAX:
                _shut(self._connections.pop(next(iter(self._connections))))
            self._connections[id(request)] = request
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(id(request), None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""

    def shutdown(self) -> None:
        """Wake the thread that accepts, and wait until it has ended."""
        _shut(self.socket)
        super().shutdown()

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            for connection in self._connections.values():
                _shut(connection)
            self._connections.clear()


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    timeout = IDLE_SECONDS
    server_version = "bridged"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not logged."""

    def _answer(self, *, with_body: bool) -> None:
        if not self._is_allowed():
            self._send(HTTPStatus.UNAUTHORIZED, b"bearer token needed\n", {"WWW-Authenticate": "Bearer"})
            return
        if self.path.partition("?")[0] != "/metrics":
            self._send(HTTPStatus.NOT_FOUND, b"only /metrics\n")
            return
        try:
            body = render(self.server.registry.collect())
        except Exception as error:
            # The scrape fails visibly (`up` becomes 0); nothing else of the daemon is disturbed.
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"no snapshot: {type(error).__name__}\n".encode())
            return
        headers = {"Content-Type": CONTENT_TYPE}
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, GZIP_LEVEL)
            headers["Content-Encoding"] = "gzip"
        self._send(HTTPStatus.OK, body if with_body else b"", headers)

    def _is_allowed(self) -> bool:
        expected = self.server.expected
        if expected is None:
            return True
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        return hmac.compare_digest(given, expected)

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _family(host: str) -> socket.AddressFamily:
    try:
        version = ipaddress.ip_address(host.partition("%")[0]).version
    except ValueError:
        return socket.AF_INET
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has gone already
