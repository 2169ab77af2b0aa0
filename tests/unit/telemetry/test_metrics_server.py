"""/metrics over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from lab.snapshots import daemon
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from bridged.addresses import Endpoint
from bridged.configuration.schema import Metrics
from bridged.telemetry.collector import DaemonCollector, build_registry
from bridged.telemetry.server import (
    CONNECTIONS_MAX,
    MetricsServer,
    MetricsServerError,
    call_in_loop,
    read_bearer_token,
)

LOOPBACK = Endpoint("127.0.0.1", 0)


def registry() -> CollectorRegistry:
    return build_registry(DaemonCollector(daemon, Metrics()))


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    instance = MetricsServer(LOOPBACK, registry())
    instance.start()
    yield instance
    instance.stop()


def url(server: MetricsServer, path: str = "/metrics") -> str:
    return f"http://{server.endpoint}{path}"


def test_a_scrape_is_readable_by_prometheus(server: MetricsServer) -> None:
    answer = httpx.get(url(server))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["content-encoding"] == "gzip"
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"bridged_build_info", "bridged_peer_frames", "process_open_fds"} <= names


def test_a_scraper_without_gzip_gets_plain_text(server: MetricsServer) -> None:
    answer = httpx.get(url(server), headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in answer.headers
    assert "bridged_tunnel_up" in answer.text


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/x", "/favicon.ico", "/../metrics"])
def test_nothing_but_metrics_is_served(server: MetricsServer, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.endpoint.port, timeout=5)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


def test_a_query_is_ignored_and_head_has_no_body(server: MetricsServer) -> None:
    assert httpx.get(url(server, "/metrics?name[]=x")).status_code == 200
    answer = httpx.head(url(server))
    assert (answer.status_code, answer.content) == (200, b"")
    assert httpx.post(url(server)).status_code == 501


def test_the_token_is_asked_for() -> None:
    server = MetricsServer(LOOPBACK, registry(), token="correct-horse")
    server.start()
    try:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "correct-horse"}):
            answer = httpx.get(url(server), headers=headers)
            assert answer.status_code == 401
            assert "bridged_" not in answer.text
        assert httpx.get(url(server, "/other")).status_code == 401
        good = httpx.get(url(server), headers={"Authorization": "Bearer correct-horse"})
        assert good.status_code == 200
    finally:
        server.stop()


def test_a_taken_port_is_a_clear_error(server: MetricsServer) -> None:
    second = MetricsServer(server.endpoint, registry())
    with pytest.raises(MetricsServerError, match=rf"{server.endpoint}.*in use.*metrics\.listen") as caught:
        second.start()
    assert caught.value.code == "in_use"
    second.stop()


def test_an_address_that_is_not_ours_is_a_clear_error() -> None:
    with pytest.raises(MetricsServerError) as caught:
        MetricsServer(Endpoint("192.0.2.123", 9743), registry()).start()
    assert caught.value.code == "io_error"


def test_it_listens_on_ipv6_too() -> None:
    server = MetricsServer(Endpoint("::1", 0), registry())
    server.start()
    try:
        assert httpx.get(url(server)).status_code == 200
    finally:
        server.stop()


def test_idle_connections_cannot_lock_a_scraper_out(server: MetricsServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.endpoint.port)) for _ in range(4 * CONNECTIONS_MAX)]
    try:
        assert httpx.get(url(server), timeout=5).status_code == 200
        idle[0].settimeout(5)
        assert idle[0].recv(1) == b"", "the oldest idle connection is closed"
        names = [thread.name for thread in threading.enumerate() if "process_request_thread" in thread.name]
        assert len(names) <= 2 * CONNECTIONS_MAX
    finally:
        for connection in idle:
            connection.close()


def test_the_port_is_free_again_after_stop(server: MetricsServer) -> None:
    endpoint = server.endpoint
    httpx.get(url(server))
    server.stop()
    server.stop()
    again = MetricsServer(endpoint, registry())
    again.start()
    again.stop()


def test_a_failing_snapshot_fails_the_scrape_and_nothing_else() -> None:
    healthy = threading.Event()

    def snapshot():  # type: ignore[no-untyped-def]
        if not healthy.is_set():
            raise TimeoutError
        return daemon()

    server = MetricsServer(LOOPBACK, build_registry(DaemonCollector(snapshot, Metrics())))
    server.start()
    try:
        assert httpx.get(url(server)).status_code == 503
        healthy.set()
        assert httpx.get(url(server)).status_code == 200
    finally:
        server.stop()


def test_a_snapshot_is_taken_in_the_event_loop() -> None:
    async def scrape() -> tuple[int, list[int]]:
        threads: list[int] = []

        def snapshot():  # type: ignore[no-untyped-def]
            threads.append(threading.get_ident())
            return daemon()

        loop = asyncio.get_running_loop()
        collector = DaemonCollector(call_in_loop(loop, snapshot), Metrics())
        server = MetricsServer(LOOPBACK, build_registry(collector))
        server.start()
        try:
            async with httpx.AsyncClient() as client:
                answer = await client.get(url(server))
        finally:
            server.stop()
        return answer.status_code, threads

    status, threads = asyncio.run(scrape())
    assert status == 200
    assert threads == [threading.get_ident()]


def test_a_stopped_event_loop_is_an_error_and_no_hang() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    begin = time.monotonic()
    with pytest.raises(RuntimeError):
        call_in_loop(loop, daemon)()
    assert time.monotonic() - begin < 1


def test_the_token_file_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"  abc123\n")
    assert read_bearer_token(path) == "abc123"
    for content in (b"", b"\n", b"two words", b"\xc3\xa9", b"a" * 5000):
        path.write_bytes(content)
        with pytest.raises(MetricsServerError) as caught:
            read_bearer_token(path)
        assert caught.value.code == "bad_token"
        assert (
            content == b""
            or content.decode("latin-1").strip()[:5] not in caught.value.message
            or not content.strip()
        )
    with pytest.raises(MetricsServerError, match="No such file"):
        read_bearer_token(tmp_path / "absent")
