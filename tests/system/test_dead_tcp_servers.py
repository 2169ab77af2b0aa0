"""A client whose TCP servers take no connection: pauses, what ends them, the next remote. Over loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import pairwise
from typing import Any

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.runtime.client import backoff
from bridged.runtime.client.call_stream import CallStream
from bridged.runtime.tunnels.tunnel import RunningTunnel
from tests.lab.bounds import at_most
from tests.lab.waiting import until
from tests.system.loopback_lab import Lab, client_role, crosses, run, silent, sources

HOSTS = ("127.0.0.1", "::1")
SOON_SECONDS = 1.6
"""After news: those of the network begin one round a second."""


def now() -> float:
    return asyncio.get_running_loop().time()


def tcp_endpoint(name: tuple[Any, ...]) -> Endpoint:
    """`name`: what a socket says of itself."""
    host, port = name[:2]
    return Endpoint(host, port, "tcp")


class Closing:
    """Takes every connection and closes it at once, as a balancer without servers behind it does."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.endpoint: Endpoint | None = None

    @property
    def remote(self) -> Remote:
        assert self.endpoint is not None
        return Remote(self.endpoint, "tcp")

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.times.append(now())
        writer.close()


@asynccontextmanager
async def closing(host: str) -> AsyncIterator[Closing]:
    found = Closing()
    async with await asyncio.start_server(found.take, host, 0) as server:
        found.endpoint = tcp_endpoint(server.sockets[0].getsockname())
        yield found


def refusing(host: str) -> Remote:
    """Nobody listens there."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        return Remote(tcp_endpoint(sock.getsockname()), "tcp")


def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after many failures: 2 s, 4 s, 8 s, ..."""
    monkeypatch.setattr(backoff, "ROUNDS_BEFORE_BACKOFF", 0)


def pauses(client: RunningTunnel, remote: Remote) -> float:
    """Seconds until it dials again."""
    return client_role(client)._dials.until(remote.server) - now()


@pytest.mark.measures
@pytest.mark.parametrize("host", HOSTS)
def test_a_server_that_closes_every_connection_is_dialled_less_and_less(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried(monkeypatch)

    async def scenario(lab: Lab) -> None:
        async with closing(host) as dead:
            client, _ = await lab.client_of([dead.remote])
            await until(lambda: len(dead.times) >= 4, seconds=20)
            between = [later - earlier for earlier, later in pairwise(dead.times)]
            for failures, seconds in enumerate(between, 1):
                # Half to all of what doubles; the round after the pause begins within a second.
                assert seconds + 0.05 >= 2.0**failures / 2, between
                at_most(seconds, 2.0**failures + 1.5, f"the pause after failure {failures}")
            await until(lambda: client.state == "waiting")

    run(scenario)


@pytest.mark.measures
@pytest.mark.parametrize("news", ["handle_network_change", "handle_clock_step"])
@pytest.mark.parametrize("host", HOSTS)
def test_news_end_the_pause(host: str, news: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried(monkeypatch)

    async def scenario(lab: Lab) -> None:
        async with closing(host) as dead:
            client, _ = await lab.client_of([dead.remote])
            await until(lambda: pauses(client, dead.remote) > 4.0, seconds=20)
            before, began = len(dead.times), now()
            getattr(client, news)()
            await until(lambda: len(dead.times) > before, seconds=SOON_SECONDS)
            at_most(now() - began, SOON_SECONDS, "dialling")
            # After a step of the clock the pauses begin from the shortest; a network alone forgets nothing.
            await until(lambda: pauses(client, dead.remote) > 0.0)
            is_short = pauses(client, dead.remote) < 2.1
            assert is_short is (news == "handle_clock_step")

    run(scenario)


@pytest.mark.measures
@pytest.mark.parametrize("host", HOSTS)
def test_a_server_that_returns_is_found_when_the_network_changes_however_long_it_was_dead(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(lab: Lab) -> None:
        nobody = refusing("127.0.0.1")
        client, far = await lab.client_of([nobody])
        role = client_role(client)
        await until(lambda: pauses(client, nobody) > 0.0)
        for _ in range(20):
            role._dials.note_failure(nobody.server, now())
        assert pauses(client, nobody) > 25.0
        server, lan = await lab.server(port=nobody.server.port, tcp=True)
        client.handle_network_change()
        began = now()
        await until(lambda: client.state == "connected")
        at_most(now() - began, 3.0, "connecting")
        await crosses(far, lan)
        assert server.records.statistics.control_drops.total() == 0
        assert pauses(client, nobody) < 0.0

    run(scenario)


@pytest.mark.measures
@pytest.mark.parametrize("is_closing", [True, False])
def test_the_next_remote_is_called_at_once_while_a_dead_one_is_left_alone(
    is_closing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried(monkeypatch)

    async def scenario(lab: Lab) -> None:
        async with closing("::1") as dead:
            first = dead.remote if is_closing else refusing("::1")
            server, lan = await lab.server(tcp=True)
            (alive,) = server.role.tcp_endpoints
            client, far = await lab.client_of([first, Remote(alive, "tcp")])
            began = now()
            await until(lambda: client.state == "connected")
            at_most(now() - began, 2.0, "connecting")
            await crosses(far, lan)

    run(scenario)


@contextmanager
def hanging() -> Iterator[Remote]:
    """Somebody listens, and takes no connection: first packets, and all that repeat them, are dropped."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield Remote(tcp_endpoint(listening.getsockname()), "tcp")


def test_a_dial_that_hangs_goes_on_and_begins_again_when_the_network_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled: list[CallStream] = []
    connect = CallStream._connect

    def noted(stream: CallStream, made: socket.socket) -> None:
        dialled.append(stream)
        connect(stream, made)

    async def scenario(lab: Lab) -> None:
        monkeypatch.setattr(CallStream, "_connect", noted)
        with hanging() as dead, silent() as other:
            # The other remote shows when a second round has begun.
            client, _ = await lab.client_of([dead, Remote(Endpoint(*other.getsockname()))])
            ports: set[int] = set()

            def is_second_round() -> bool:
                ports.update(sources(other))
                return len(ports) == 2

            await until(is_second_round, seconds=12)
            assert len(dialled) == 1
            client.handle_network_change()
            await until(lambda: len(dialled) == 2, seconds=SOON_SECONDS)
            assert dialled[0]._is_closed and not dialled[1]._is_closed

    run(scenario)
