"""Serves /metrics over HTTP or HTTPS in its own thread: a slow scraper does not delay the daemon.

Answers GET and HEAD of its pages and probes only. Cost and memory are bounded (see `metrics_http`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from bridged.addresses import Endpoint
from bridged.configuration.check import is_loopback
from bridged.endings import take_every_step
from bridged.errors import BridgedError
from bridged.files import open_to_read, why_unreadable
from bridged.supervision import SUPERVISOR
from bridged.telemetry.exposition import render
from bridged.telemetry.metrics_http import CONNECTIONS_MAX, HealthProbe, MetricsHttp, MetricsSocket
from bridged.telemetry.web_access import WebAccess

__all__ = [
    "CONNECTIONS_MAX",
    "MetricsServer",
    "MetricsServerError",
    "read_bearer_token",
]

TOKEN_OCTETS_MAX: Final = 4096


class MetricsServerError(BridgedError):
    """/metrics cannot be served: `in_use`, `bad_token`, `no_authentication`, `io_error`."""


def read_bearer_token(path: Path) -> str:
    """The token in `path`: one line of printable ASCII; white space around it is ignored.

    Raises:
        MetricsServerError: the file cannot be read, or contains no token.
    """
    try:
        with open_to_read(path) as stream:
            content = stream.read(TOKEN_OCTETS_MAX + 1)
    except OSError as error:
        text = f"metrics.bearer_token_file {path}: {why_unreadable(path, error)}"
        raise MetricsServerError("bad_token", text) from error
    token = content.strip()
    if not token or len(content) > TOKEN_OCTETS_MAX or not all(33 <= octet <= 126 for octet in token):
        text = f"metrics.bearer_token_file {path}: expected one line of printable ASCII without spaces"
        raise MetricsServerError("bad_token", text)
    return token.decode("ascii")


class MetricsServer:
    """Serves `registry` as /metrics on `listen`, and `more` pages: path -> makes the text, in a thread.

    Every client needs `token`, if there is one, or what the file `web_config` asks for. `probes`: path ->
    says what is wrong. `given`: a listener of the service manager, used instead of `listen`.

    Raises:
        MetricsServerError: from `start`: the address is in use or not ours, or would be open to everybody.
        WebConfigError: from `start`.
    """

    def __init__(
        self,
        listen: Endpoint,
        registry: CollectorRegistry,
        token: str | None = None,
        given: socket.socket | None = None,
        *,
        web_config: Path | None = None,
        more: Mapping[str, Callable[[], bytes]] | None = None,
        probes: Mapping[str, HealthProbe] | None = None,
    ) -> None:
        self._listen = listen
        self._given = given
        self._is_open = token is None
        self._access = WebAccess(token, web_config)
        pages = {"/metrics": lambda: render(registry.collect()), **(more or {})}
        self._http = MetricsHttp(pages, self._access, probes)
        self._listener: MetricsSocket | None = None
        self._thread: threading.Thread | None = None
        self._endpoint: Endpoint | None = None

    @property
    def endpoint(self) -> Endpoint | None:
        """The address it listens on; None before `start`."""
        return self._endpoint

    def start(self) -> None:
        """Bind and serve; scrapes are answered as soon as this returns."""
        web_config = self._access.load()
        try:
            self._listener = listener = self._open()
        except OSError as error:
            code = "in_use" if error.errno == 98 else "io_error"
            text = f"cannot serve metrics on {self._listen}: {error.strerror or error}; change metrics.listen"
            raise MetricsServerError(code, text) from error
        host, port = listener.getsockname()[:2]
        self._endpoint = Endpoint.of(str(host), int(port))
        if self._is_open and not web_config.keeps_strangers_out and not is_loopback(self._endpoint):
            self._listener = None
            listener.close()
            text = (
                f"cannot serve metrics on {self._endpoint} to everybody: set metrics.bearer_token_file, or "
                "basic_auth_users or RequireAndVerifyClientCert in metrics.web_config_file"
            )
            raise MetricsServerError("no_authentication", text)
        self._thread = SUPERVISOR.thread(
            "metrics_server",
            lambda: asyncio.run(self._http.serve(listener.dup())),
            name="metrics",
            is_wanted=lambda: self._listener is listener,
        )

    def _open(self) -> MetricsSocket:
        if self._given is None:
            return _bind(self._listen)
        given, self._given = self._given, None
        listener = MetricsSocket(given.family, given.type, given.proto, fileno=given.detach())
        listener.setblocking(False)
        return listener

    def stop(self) -> None:
        """Close the port and all connections. Idempotent. Do not call it from a scrape's thread."""
        listener, thread = self._listener, self._thread
        self._listener = self._thread = None
        if listener is None or thread is None:
            return
        take_every_step((self._http.stop, thread.join, listener.close))


def _bind(listen: Endpoint) -> MetricsSocket:
    listener = MetricsSocket(_family(listen.host), socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((listen.host, listen.port))
        listener.listen()
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _family(host: str) -> socket.AddressFamily:
    try:
        version = ipaddress.ip_address(host.partition("%")[0]).version
    except ValueError:
        return socket.AF_INET
    return socket.AF_INET6 if version == 6 else socket.AF_INET
