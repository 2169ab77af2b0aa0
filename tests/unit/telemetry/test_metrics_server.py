"""/metrics over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from bridged.addresses import Endpoint
from bridged.configuration.schema import Metrics
from bridged.runtime.snapshot import DaemonSnapshot
from bridged.supervision import SUPERVISOR
from bridged.telemetry.collector import DaemonCollector, build_registry
from bridged.telemetry.loop_calls import call_in_loop
from bridged.telemetry.metrics_http import MetricsHttp, neighbourhood
from bridged.telemetry.server import (
    CONNECTIONS_MAX,
    MetricsServer,
    MetricsServerError,
    read_bearer_token,
)
from bridged.telemetry.web_access import WebAccess
from tests.lab.bounds import at_most, takes_at_most
from tests.lab.snapshots import daemon
from tests.lab.waiting import PATIENCE

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
    connection = http.client.HTTPConnection("127.0.0.1", server.endpoint.port, timeout=5 * PATIENCE)
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
        MetricsServer(Endpoint("192.0.2.123", 9743), registry(), "token").start()
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
        assert httpx.get(url(server), timeout=5 * PATIENCE).status_code == 200
        idle[0].settimeout(5 * PATIENCE)
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

    def snapshot() -> DaemonSnapshot:
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

        def snapshot() -> Generator[None, None, DaemonSnapshot]:
            threads.append(threading.get_ident())
            yield
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
    assert threads == 2 * [threading.get_ident()]


@pytest.mark.measures
def test_a_stopped_event_loop_is_an_error_and_no_hang() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with takes_at_most(1.0, "the answer"), pytest.raises(RuntimeError):
        call_in_loop(loop, daemon)()


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


class Slow:
    """A registry whose collection waits until it is let go; counts how often it was asked."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = 0

    def collect(self) -> Iterator[Metric]:
        self.asked += 1
        assert self.go.wait(20)
        return iter(())


def open_to(server: MetricsServer, text: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.endpoint.port), timeout=10)
    if text:
        connection.sendall(text)
    return connection


def test_no_work_is_done_for_a_stranger() -> None:
    registry: Any = Slow()
    server = MetricsServer(LOOPBACK, registry, token="correct-horse")
    server.start()
    before = threading.active_count()
    strangers: list[socket.socket] = []
    try:
        for request in (b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b""):
            strangers += [open_to(server, request) for _ in range(40)]
        answer = httpx.get(url(server))
        assert answer.status_code == 401
        assert registry.asked == 0
        assert threading.active_count() <= before, "no thread for a stranger"
        registry.go.set()
        good = httpx.get(url(server), headers={"Authorization": "Bearer correct-horse"})
        assert good.status_code == 200
    finally:
        for stranger in strangers:
            stranger.close()
        server.stop()


def test_a_flood_of_connections_does_not_starve_a_scraper_from_elsewhere(server: MetricsServer) -> None:
    over = threading.Event()
    to = ("127.0.0.1", server.endpoint.port)

    def flood() -> None:
        held: list[socket.socket] = []
        while not over.is_set():
            try:
                held.append(socket.create_connection(to, timeout=10, source_address=("127.0.0.2", 0)))
                held[-1].sendall(b"GET /metrics HTTP/1.1\r\n")
            except OSError:
                pass
            if len(held) > 2 * CONNECTIONS_MAX:
                held.pop(0).close()
        for one in held:
            one.close()

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert httpx.get(url(server), timeout=20).status_code == 200
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_the_address_with_most_connections_makes_room_for_others() -> None:
    http_server = MetricsHttp({}, WebAccess())
    aborted: list[int] = []

    class Connection:
        def __init__(self, number: int) -> None:
            self.number = number

        def cancel(self) -> None:
            aborted.append(self.number)

    places: Any = http_server._places
    for number in range(CONNECTIONS_MAX):
        places[Connection(number)] = "192.0.2.1" if number % 8 == 0 else "198.51.100.9"
    for _ in range(3):
        http_server._make_room()
        places[Connection(999)] = "198.51.100.9"
    assert aborted == [1, 2, 3], "the greedy one's oldest, and never the other's"
    assert len(places) == CONNECTIONS_MAX


def test_a_reader_that_takes_nothing_holds_up_nobody() -> None:
    big = b"x" * (8 << 20)
    server = MetricsServer(LOOPBACK, registry())
    server._http = MetricsHttp({"/metrics": lambda: big}, WebAccess())
    server.start()
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    slow = [open_to(server, request) for _ in range(2 * CONNECTIONS_MAX)]
    try:
        answer = httpx.get(url(server), headers={"Accept-Encoding": "identity"}, timeout=20)
        assert (answer.status_code, len(answer.content)) == (200, len(big))
        assert len(server._http._places) <= CONNECTIONS_MAX
    finally:
        for one in slow:
            one.close()
        server.stop()


def test_scrapes_at_once_share_one_snapshot() -> None:
    registry: Any = Slow()
    server = MetricsServer(LOOPBACK, registry)
    server.start()
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    try:
        scrapers = [open_to(server, request) for _ in range(10)]
        deadline = time.monotonic() + 10
        while registry.asked == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        # One that goes away takes the snapshot from nobody.
        scrapers.pop(0).close()
        registry.go.set()
        for scraper in scrapers:
            assert scraper.recv(15) == b"HTTP/1.1 200 OK"
            scraper.close()
        assert registry.asked <= 2
    finally:
        server.stop()


@pytest.mark.measures
def test_whoever_scrapes_without_end_leaves_most_of_the_processor_to_others() -> None:
    took: list[float] = []

    def render() -> bytes:
        began = time.monotonic()
        while time.monotonic() - began < 0.04:
            pass
        took.append(time.monotonic() - began)
        return b"x 1\n"

    server = MetricsServer(LOOPBACK, registry())
    server._http = MetricsHttp({"/metrics": render}, WebAccess())
    server.start()
    try:
        began = time.monotonic()
        while len(took) < 6:
            with open_to(server, b"GET /metrics HTTP/1.1\r\n\r\n") as scraper:
                while scraper.recv(4096):
                    pass
        at_most(sum(took), 0.5 * (time.monotonic() - began), "work of the server")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", b"501"),
    ],
)
def test_what_is_no_scrape_is_refused_with_its_status(
    server: MetricsServer, request_text: bytes, status: bytes
) -> None:
    with open_to(server, request_text) as connection:
        assert connection.recv(64).split()[1] == status
    assert httpx.get(url(server)).status_code == 200


def test_a_stop_ends_all_connections_and_is_no_failure() -> None:
    registry: Any = Slow()
    server = MetricsServer(LOOPBACK, registry)
    before = SUPERVISOR.failures.copy()
    server.start()
    requests = (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n")
    connections = [open_to(server, request) for request in requests for _ in range(3)]
    deadline = time.monotonic() + 10
    while registry.asked == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    server.stop()
    registry.go.set()
    for connection in connections:
        with connection, contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass
    assert SUPERVISOR.failures == before


def test_whoever_says_nothing_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridged.telemetry.metrics_http.HEAD_SECONDS", 0.1)
    server = MetricsServer(LOOPBACK, registry())
    server.start()
    try:
        with open_to(server, b"GET /met") as connection:
            assert connection.recv(1) == b""
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8::5", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_ipv6_network_counts_as_one_address(address: str, where: str) -> None:
    assert neighbourhood(address) == where


def test_probes_say_what_is_wrong() -> None:
    async def ready() -> str | None:
        return wrong[0]

    async def healthy() -> str | None:
        raise TimeoutError("the event loop does not answer")

    wrong: list[str | None] = ["not started: office"]
    server = MetricsServer(LOOPBACK, registry(), probes={"/-/ready": ready, "/-/healthy": healthy})
    server.start()
    try:
        answer = httpx.get(url(server, "/-/ready"))
        assert (answer.status_code, answer.text) == (503, "not started: office\n")
        wrong[0] = None
        assert httpx.get(url(server, "/-/ready")).status_code == 200
        assert httpx.get(url(server, "/-/healthy")).text == "the event loop does not answer\n"
    finally:
        server.stop()
