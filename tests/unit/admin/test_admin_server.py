"""The admin API's socket and its HTTP: who gets in, what is refused, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridged.admin.client import AdminClient, AdminError
from bridged.admin.server import AdminServer
from bridged.admin.socket import AdminSocketError
from tests.lab.waiting import in_time
from tests.unit.admin.admin_rig import State, asked, request, served


def test_requests_are_counted_by_route_template_only(path: Path) -> None:
    async def run() -> Any:
        server = AdminServer(path, State())
        await server.start()
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://bridged") as client:
            await client.get("/v1/status")
            await client.get("/v1/fdb", params={"tunnel": "x"})
            await client.post("/v1/status")
            for number in range(5):
                await client.get(f"/guess/{number}")
        await server.stop()
        return server.counters()

    counters = asyncio.run(run())
    assert counters.requests[("/v1/status", "GET", "200")] == 1
    assert counters.requests[("/v1/fdb", "GET", "404")] == 1
    assert counters.requests[("unknown", "GET", "404")] == 5
    assert {route for route, _, _ in counters.requests} == {"/v1/status", "/v1/fdb", "unknown"}
    assert sum(counters.durations["unknown"].counts) >= 5


def test_the_socket_is_private_and_goes_with_the_server(path: Path) -> None:
    def look(_client: AdminClient) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    previous = os.umask(0)
    try:
        assert served(path, State(), look) == 0o600
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()


def test_a_stale_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    assert served(path, State(), lambda client: client.confirm()).confirmed


def test_a_live_daemon_keeps_its_socket(path: Path) -> None:
    async def run() -> None:
        first = AdminServer(path, State())
        await first.start()
        with pytest.raises(AdminSocketError, match="another bridged listens") as caught:
            await AdminServer(path, State()).start()
        assert caught.value.code == "in_use"
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://bridged") as client:
            assert (await client.get("/v1/health")).status_code == 200
        await first.stop()

    asyncio.run(run())


def test_a_file_in_the_socket_s_place_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(AdminSocketError, match="not a socket"):
        served(path, State(), lambda client: client.status())
    assert path.read_text() == "mine"


def test_a_successor_s_socket_is_not_removed(path: Path) -> None:
    async def run() -> None:
        first = AdminServer(path, State())
        await first.start()
        path.unlink()
        second = AdminServer(path, State())
        await second.start()
        await first.stop()
        assert path.exists()
        await second.stop()
        assert not path.exists()

    asyncio.run(run())


def test_a_connection_is_kept_for_further_requests_and_bodies_are_left_out(path: Path) -> None:
    first = request("/v1/confirm", "POST", "Content-Length: 4", body=b"GET ")
    answers = asked(path, first, request(), request("/v1/status", "GET", "Connection: close"), request())
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert [fields["Connection"] for _, fields, _ in answers] == ["keep-alive", "keep-alive", "close"]


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"GET http://x/v1/status HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/status HTTP/2.0\r\n\r\n", 505),
        (request("/v1/status", "GET", "no field"), 400),
        (request("/v1/status", "GET", "Content-Length: -1"), 400),
        (request("/v1/status", "GET", "Content-Length: 1", "Content-Length: 2"), 400),
        (request("/v1/status", "POST", "Content-Length: 9999999999999"), 413),
        (request("/v1/status", "POST", "Transfer-Encoding: chunked"), 411),
        (request("/v1/status", "GET", f"Cookie: {'x' * 20_000}"), 431),
    ],
)
def test_what_is_no_request_is_answered_with_a_reason_and_ends_the_connection(
    path: Path, octets: bytes, status: int
) -> None:
    ((answered, fields, document),) = asked(path, octets, request())
    assert (answered, fields["Connection"]) == (status, "close")
    assert document["detail"]


@pytest.mark.parametrize(
    ("method", "target", "allowed"), [("POST", "/v1/status", "GET, HEAD"), ("GET", "/v1/reload", "POST")]
)
def test_a_method_that_a_path_does_not_take_is_refused_with_those_it_takes(
    path: Path, method: str, target: str, allowed: str
) -> None:
    ((status, fields, _),) = asked(path, request(target, method), count=1)
    assert (status, fields["Allow"]) == (405, allowed)


def test_more_connections_than_allowed_are_refused_and_served_when_others_have_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridged.admin.http.CONNECTIONS_MAX", 2)

    async def run() -> None:
        server = AdminServer(path, State())
        await server.start()
        idle = [await asyncio.open_unix_connection(str(path)) for _ in range(2)]
        async with in_time(5):
            assert await status_of_health(path) == "503"
            for _, writer in idle:
                writer.close()
            while await status_of_health(path) != "200":
                pass
            await server.stop()

    asyncio.run(run())


def test_a_client_that_says_nothing_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridged.admin.http.IDLE_SECONDS", 0.05)
    assert asked(path, b"GET /v1/sta") == []


def test_stop_is_idempotent_and_ends_while_a_client_is_connected(path: Path) -> None:
    async def run() -> None:
        server = AdminServer(path, State())
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /v1/sta")
        await writer.drain()
        async with in_time(5):
            await server.stop()
            await server.stop()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()

    asyncio.run(run())


async def ask_without_reading(path: Path) -> asyncio.StreamWriter:
    """A connection with more answers than its buffers take, and a client that reads none."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    requests = 100 * request("/v1/status", "GET")
    for _ in range(1000):
        writer.write(requests)
        # Its own buffer fills up when the server, which waits for its answers to be read, reads no more;
        # or the server has let it go already.
        if writer.is_closing() or writer.transport.get_write_buffer_size() > len(requests):
            return writer
        await asyncio.sleep(0.005)
    raise AssertionError("all answers went somewhere")


def test_stop_ends_while_clients_do_not_read_their_answers(path: Path) -> None:
    async def run() -> None:
        server = AdminServer(path, State())
        await server.start()
        deaf = [await ask_without_reading(path) for _ in range(2)]
        async with in_time(5):
            await server.stop()
        for writer in deaf:
            writer.close()

    asyncio.run(run())


def test_clients_that_do_not_read_their_answers_are_let_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridged.admin.http.IDLE_SECONDS", 0.2)

    async def run() -> None:
        server = AdminServer(path, State())
        await server.start()
        before = len(asyncio.all_tasks())
        deaf = [await ask_without_reading(path) for _ in range(2)]
        async with in_time(5):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.02)
            await server.stop()
        for writer in deaf:
            writer.close()

    asyncio.run(run())


def test_a_client_that_does_not_read_a_refusal_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridged.admin.http.IDLE_SECONDS", 0.3)
    status = ("/v1/status", "GET", "200")

    async def run() -> None:
        server = AdminServer(path, State())
        await server.start()
        before = len(asyncio.all_tasks())
        filling = await ask_without_reading(path)
        # The last one had no room; so many have.
        fitting = server.counters().requests[status] - 1
        reader, writer = await asyncio.open_unix_connection(str(path))
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(fitting * request("/v1/status", "GET") + b"nonsense\r\n\r\n")
        async with in_time(10):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.02)
            assert server.counters().requests[status] == 2 * fitting + 1
            await server.stop()
        filling.close()
        writer.close()

    asyncio.run(run())


def test_a_client_that_closes_its_side_first_gets_all_its_answers(path: Path) -> None:
    async def run() -> None:
        server = AdminServer(path, State())
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(2000 * request("/v1/status", "GET"))
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0.1)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        async with in_time(20):
            answers = await reader.read()
        assert answers.count(b"HTTP/1.1 ") == 2000 and answers.endswith(b"}")
        writer.close()
        await server.stop()

    asyncio.run(run())


async def status_of_health(path: Path) -> str:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request("/v1/health", "GET", "Connection: close"))
    answer = (await reader.read()).decode().split(" ")[1]
    writer.close()
    return answer


def test_the_signals_stay_the_daemon_s(path: Path) -> None:
    async def run() -> bool:
        server = AdminServer(path, State())
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        await server.start()
        during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        await server.stop()
        return before == during

    assert asyncio.run(run())


def test_no_daemon_is_a_clear_error(path: Path) -> None:
    with AdminClient(path) as client, pytest.raises(AdminError, match=r"is bridged running\?") as caught:
        client.status()
    assert caught.value.code == "not_running"
    assert str(path) in caught.value.message


def test_a_listener_that_does_not_speak_http_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with AdminClient(path, timeout=0.2) as client, pytest.raises(AdminError) as caught:
            client.status()
        assert caught.value.code == "timeout"

        def answer() -> None:
            for _ in range(2):  # the first is the timed-out connection above
                connection, _ = listener.accept()
                with connection, contextlib.suppress(BrokenPipeError):
                    connection.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with AdminClient(path) as client, pytest.raises(AdminError) as caught:
            client.status()
        thread.join()
        assert caught.value.code == "api"
