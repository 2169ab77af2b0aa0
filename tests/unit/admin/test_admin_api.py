"""The admin API: a real server on a real Unix socket, asked by the real client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from bridged.addresses import MacAddress
from bridged.admin.client import AdminClient, AdminError
from bridged.admin.documents import health_document, status_document
from bridged.admin.models import FdbAnswer, HealthAnswer, StatusAnswer
from bridged.admin.server import AdminServer
from bridged.admin.socket import AdminSocketError
from bridged.admin.state import TunnelStation
from bridged.catalogue.counters import FAMILIES
from bridged.catalogue.error_codes import ERROR_CODES
from bridged.errors import DataplaneError
from bridged.pki import PkiError
from bridged.runtime.site.trust_keeper import Revocation
from bridged.runtime.snapshot import BridgeStatus, DaemonSnapshot, DutiesStatus, ReloadStatus
from bridged.runtime.tunnels.static_stations import StaticStation
from bridged.supervision import Undone
from bridged.units import Seconds, UnixSeconds
from tests.lab.snapshots import NOW, absent_peer, daemon, peer, status_answer, tunnel

T = TypeVar("T")


class State:
    """What a daemon would be asked; remembers in which thread."""

    def __init__(self, snapshot: DaemonSnapshot | None = None) -> None:
        self.current = snapshot or daemon()
        self.waiting = True
        self.reloaded = ReloadStatus()
        self.threads: set[int] = set()

    def snapshot(self) -> DaemonSnapshot:
        self.threads.add(threading.get_ident())
        return self.current

    def confirm(self) -> bool:
        was, self.waiting = self.waiting, False
        return was

    async def reload(self) -> ReloadStatus:
        return self.reloaded

    def kick(self, name: str, tunnel: str | None) -> int:
        if tunnel not in (None, "sites"):
            raise KeyError(tunnel)
        return 2 if name == "shop" else 0

    async def revoke(self, name: str, keep: str | None, state: str | None) -> Revocation:
        if name != "shop":
            raise PkiError("pki_unknown", f"no valid certificate for {name!r}")
        self.revoked = (name, keep, state)
        return Revocation(1, 2)

    def fdb(self, tunnel: str) -> Sequence[TunnelStation]:
        if tunnel != "sites":
            raise KeyError(tunnel)
        return [
            TunnelStation(MacAddress.parse("02:00:00:00:00:01"), "warehouse", Seconds(1.5)),
            TunnelStation(MacAddress.parse("02:00:00:00:00:02"), None, Seconds(0.0), is_static=True),
        ]

    def static_stations(self, tunnel: str) -> Sequence[StaticStation]:
        return [
            StaticStation(MacAddress.parse("02:00:00:00:00:02"), None, True),
            StaticStation(MacAddress.parse("02:00:00:00:00:03"), "shop", False),
        ]

    def add_station(self, tunnel: str, address: MacAddress, peer: str | None) -> StaticStation:
        if tunnel != "sites":
            raise KeyError(tunnel)
        if peer == "full":
            raise DataplaneError("fdb_full", "no room")
        return StaticStation(address, peer, is_installed=peer is None)

    def remove_station(self, tunnel: str, address: MacAddress) -> bool:
        if tunnel != "sites":
            raise KeyError(tunnel)
        return address == MacAddress.parse("02:00:00:00:00:02")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "bridged.sock"


def served(path: Path, state: State, ask: Callable[[AdminClient], T]) -> T:
    """Run a server, ask it from another thread, stop it."""

    def in_thread() -> T:
        with AdminClient(path) as client:
            return ask(client)

    async def run() -> T:
        server = AdminServer(path, state)
        await server.start()
        try:
            return await asyncio.to_thread(in_thread)
        finally:
            await server.stop()

    return asyncio.run(run())


def test_status_is_the_snapshot_with_nested_keys(path: Path) -> None:
    answer = served(path, State(), lambda client: client.status_json())
    (site,) = answer["tunnels"]
    warehouse, workshop = site["peers"]
    assert warehouse["counters"]["frames"] == {"receive": {"unicast": 10}, "transmit": {"broadcast": 3}}
    assert warehouse["key_group"] == "X25519MLKEM768"
    assert workshop["last_seen"] is None
    assert site["handshakes"] == {"initial": {"established": 1, "timeout": 2}}
    assert site["dataplane"]["queues"] == {"tap_write": [1, 1024]}
    assert site["dataplane"]["offload_fallbacks"] == {"udp_gro": {"einval": 1}}
    assert answer["bridges"][0]["ports"] == {"eth1": True, "eth2": False}
    assert answer["confirm_deadline"] is None


def test_the_client_s_model_is_the_daemon_s(path: Path) -> None:
    state = State(replace(daemon(), confirm_deadline=NOW + 60))
    assert served(path, state, lambda client: client.status()) == status_answer(state.current)


def test_the_daemon_s_documents_are_what_the_client_s_classes_describe() -> None:
    document = status_document(replace(daemon(), confirm_deadline=NOW + 60))
    assert StatusAnswer.model_validate(document).model_dump(mode="json") == document
    health = health_document(daemon())
    assert HealthAnswer.model_validate(health).model_dump(mode="json") == health


def test_every_field_of_the_snapshot_has_a_place_in_the_answer() -> None:
    """A new field of the snapshot must be published on purpose, or left out here by name."""

    def names(value: Any) -> set[str]:
        if hasattr(value, "__dataclass_fields__"):
            return set(value.__dataclass_fields__)
        return set(type(value).model_fields)

    snapshot = daemon()
    answer = status_answer(snapshot)
    assert names(snapshot) == names(answer)
    assert names(snapshot.tunnels[0]) == names(answer.tunnels[0])
    assert names(snapshot.tunnels[0].peers[0]) == names(answer.tunnels[0].peers[0])
    assert names(snapshot.bridges[0]) == names(answer.bridges[0])
    plane, told = snapshot.tunnels[0].dataplane, answer.tunnels[0].dataplane
    assert names(plane) - names(told) == {"peers", "counts"}
    assert {family.name for family in FAMILIES} <= names(told)


def test_requests_are_answered_in_the_daemon_s_event_loop(path: Path) -> None:
    state = State()
    served(path, state, lambda client: client.status())
    assert state.threads == {threading.get_ident()}


def test_reload_tells_its_outcome(path: Path) -> None:
    state = State()
    state.reloaded = ReloadStatus({"rejected": 1}, "rejected", "site.yaml:3: no such key")
    answer = served(path, state, lambda client: client.reload())
    assert (answer.outcome, answer.detail) == ("rejected", "site.yaml:3: no such key")


def test_confirm_tells_whether_something_waited(path: Path) -> None:
    answers = served(path, State(), lambda client: [client.confirm(), client.confirm()])
    assert [answer.confirmed for answer in answers] == [True, False]


def test_the_fdb_names_the_peer_behind_each_station(path: Path) -> None:
    answer = FdbAnswer.model_validate(served(path, State(), lambda client: client.fdb_json("sites")))
    assert answer.total == 2
    assert [(row.address, row.peer, row.static) for row in answer.stations] == [
        ("02:00:00:00:00:01", "warehouse", False),
        ("02:00:00:00:00:02", None, True),
    ]
    assert [(row.address, row.peer) for row in answer.waiting] == [("02:00:00:00:00:03", "shop")]


def test_a_station_is_added_behind_a_peer_or_in_the_lan_and_removed(path: Path) -> None:
    def ask(client: AdminClient) -> list[object]:
        added = [client.add_station("sites", "02:00:00:00:00:05", peer) for peer in ("shop", None)]
        removed = [client.remove_station("sites", f"02:00:00:00:00:0{last}").removed for last in "25"]
        return [*((one.address, one.peer, one.installed) for one in added), *removed]

    assert served(path, State(), ask) == [
        ("02:00:00:00:00:05", "shop", False),
        ("02:00:00:00:00:05", None, True),
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("?tunnel=sites", 422),
        ("?tunnel=sites&address=02:00:00:00:00", 422),
        ("?tunnel=sites&address=02:00:00:00:00:05&peer=", 422),
        (f"?tunnel=sites&address=02:00:00:00:00:05&peer={'x' * 65}", 422),
        ("?tunnel=nowhere&address=02:00:00:00:00:05", 404),
        ("?tunnel=sites&address=02:00:00:00:00:05&peer=full", 409),
    ],
)
def test_a_station_that_cannot_be_added_is_refused(path: Path, query: str, status: int) -> None:
    ((answered, _, document),) = asked(path, request(f"/v1/stations/add{query}", "POST"), count=1)
    assert answered == status and document["detail"]


def test_an_unknown_tunnel_is_told(path: Path) -> None:
    with pytest.raises(AdminError, match="no tunnel 'nowhere'"):
        served(path, State(), lambda client: client.fdb_json("nowhere"))


@pytest.mark.parametrize("up", [True, False])
def test_health_follows_the_tunnels(path: Path, up: bool) -> None:
    def ask(client: AdminClient) -> tuple[int, bool, dict[str, str]]:
        status = client._http.get("/v1/health").status_code
        answer = HealthAnswer.model_validate_json(client._http.get("/v1/health").content)
        return status, answer.ok, answer.tunnels

    state = State(daemon(tunnel("a"), tunnel("b", up=up, state="listening" if up else "stopped")))
    expected = {"a": "listening", "b": "listening" if up else "stopped"}
    assert served(path, state, ask) == (200 if up else 503, up, expected)


@pytest.mark.parametrize("amiss", ["duty", "bridge"])
def test_health_is_bad_while_a_duty_is_not_done_or_a_bridge_is_not_as_configured(
    path: Path, amiss: str
) -> None:
    def ask(client: AdminClient) -> tuple[int, dict[str, str], dict[str, str]]:
        answer = HealthAnswer.model_validate_json(client._http.get("/v1/health").content)
        return client._http.get("/v1/health").status_code, answer.bridges, answer.undone

    well = daemon(tunnel("a"))
    assert served(path, State(well), ask) == (200, {}, {})
    if amiss == "duty":
        undone = Undone("tap", "tap0", UnixSeconds(1.0), "too many open files")
        state = replace(well, duties=DutiesStatus({"tap": 1}, (undone,)))
        expected: tuple[dict[str, str], dict[str, str]] = ({}, {"tap tap0": "too many open files"})
    else:
        bridge = BridgeStatus("br0", None, None, False, {}, problem="eth1 cannot join")
        state = replace(well, bridges=(bridge,))
        expected = ({"br0": "eth1 cannot join"}, {})
    assert served(path, State(state), ask) == (503, *expected)


def test_the_openapi_description_has_every_route_with_its_answer(path: Path) -> None:
    schema = served(path, State(), lambda client: client._http.get("/v1/openapi.json").json())
    assert set(schema["paths"]) == {
        *(f"/v1/{route}" for route in ("status", "confirm", "reload", "kick", "revoke", "fdb", "health")),
        "/v1/stations/add",
        "/v1/stations/remove",
    }
    schemas = schema["components"]["schemas"]
    assert {"StatusAnswer", "PeerAnswer", "FdbAnswer"} <= set(schemas)
    assert set(schemas["ErrorCode"]["enum"]) == {code.name for code in ERROR_CODES}
    assert all(
        "default" in answer["responses"] for path in schema["paths"].values() for answer in path.values()
    )


def test_a_failing_daemon_is_a_500_and_the_server_lives_on(path: Path) -> None:
    class Broken(State):
        def snapshot(self) -> DaemonSnapshot:
            raise RuntimeError("broken")

    def ask(client: AdminClient) -> bool:
        with pytest.raises(AdminError, match="internal error"):
            client.status()
        return client.confirm().confirmed

    assert served(path, Broken(), ask) is True


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


def asked(path: Path, *requests: bytes, count: int | None = None) -> list[tuple[int, dict[str, str], Any]]:
    """Answers (status, header fields, JSON) in one connection, until it ends or `count` came."""

    async def run() -> list[tuple[int, dict[str, str], Any]]:
        server = AdminServer(path, State())
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        answers: list[tuple[int, dict[str, str], Any]] = []
        with contextlib.suppress(ConnectionError):
            writer.write(b"".join(requests))
            await writer.drain()
        async with asyncio.timeout(5):
            while len(answers) != count:
                try:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                except (EOFError, ConnectionError):
                    break
                fields = dict(line.split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(fields["Content-Length"]))
                answers.append((int(head[0].split()[1]), fields, json.loads(body)))
            writer.close()
            await server.stop()
        return answers

    return asyncio.run(run())


def request(path: str = "/v1/health", method: str = "GET", *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode("latin-1") + body


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


@pytest.mark.parametrize("query", ["", "?tunnel=", f"?tunnel={'x' * 64}"])
def test_the_fdb_needs_a_tunnel_s_name(path: Path, query: str) -> None:
    ((status, _, document),) = asked(path, request(f"/v1/fdb{query}"), count=1)
    assert (status, document) == (422, {"detail": "needs ?tunnel=NAME"})


def test_more_connections_than_allowed_are_refused_and_served_when_others_have_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridged.admin.http.CONNECTIONS_MAX", 2)

    async def ask() -> str:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(request("/v1/health", "GET", "Connection: close"))
        answer = (await reader.read()).decode().split(" ")[1]
        writer.close()
        return answer

    async def run() -> None:
        server = AdminServer(path, State())
        await server.start()
        idle = [await asyncio.open_unix_connection(str(path)) for _ in range(2)]
        async with asyncio.timeout(5):
            assert await ask() == "503"
            for _, writer in idle:
                writer.close()
            while await ask() != "200":
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
        async with asyncio.timeout(5):
            await server.stop()
            await server.stop()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()

    asyncio.run(run())


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


def test_a_newer_daemon_s_answer_is_understood(path: Path) -> None:
    answer = status_answer(daemon(tunnel("sites", peer("a"), absent_peer("b"))))
    newer = json.loads(answer.model_dump_json())
    newer["invented_later"] = 1
    newer["tunnels"][0]["peers"][0]["invented_later"] = {"x": 1}
    assert type(answer).model_validate(newer) == answer


def test_kick_says_how_many_sessions_ended_and_knows_its_tunnels(path: Path) -> None:
    state = State()
    assert served(path, state, lambda client: client.kick("shop").ended) == 2
    assert served(path, state, lambda client: client.kick("depot", "sites").ended) == 0
    with pytest.raises(AdminError, match="no tunnel 'x'"):
        served(path, state, lambda client: client.kick("shop", "x"))


def test_revoke_carries_the_daemon_s_own_error_code(path: Path) -> None:
    state = State()
    answer = served(path, state, lambda client: client.revoke("shop", Path("/s"), "7f"))
    assert (answer.revoked, answer.ended) == (1, 2) and state.revoked == ("shop", "7f", "/s")
    with pytest.raises(AdminError, match="no valid certificate for 'depot'") as caught:
        served(path, state, lambda client: client.revoke("depot", Path("/s")))
    assert caught.value.code == "pki_unknown"
    for name in ("", "x" * 65):
        with pytest.raises(AdminError):
            served(path, state, lambda client, name=name: client.revoke(name, Path("/s")))  # type: ignore[misc]


def test_what_the_api_answers_is_plain_ascii(path: Path) -> None:
    evil = "a\x1b\x7f\x9b31m\u202eö"
    state = State(daemon(tunnel("sites", peer(evil), last_error=evil)))
    raw = served(path, state, lambda client: client._http.get("/v1/status").content)
    assert all(32 <= octet < 127 for octet in raw)
    assert json.loads(raw)["tunnels"][0]["last_error"] == evil
