"""A client whose TCP servers take no connection: pauses, what ends them, the next remote. Over loopback."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.runtime.client import backoff
from bridged.runtime.tunnels.tunnel import RunningTunnel
from tests.lab.waiting import until
from tests.system.loopback_lab import Lab, client_role, crosses, run

HOSTS = ("127.0.0.1", "::1")
SOON_SECONDS = 1.6
"""After news: those of the network begin one round a second."""


def now() -> float:
    return asyncio.get_running_loop().time()


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
        found.endpoint = Endpoint(*server.sockets[0].getsockname()[:2], "tcp")
        yield found


def refusing(host: str) -> Remote:
    """Nobody listens there."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        return Remote(Endpoint(*sock.getsockname()[:2], "tcp"), "tcp")


def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after many failures: 2 s, 4 s, 8 s, ..."""
    monkeypatch.setattr(backoff, "ROUNDS_BEFORE_BACKOFF", 0)


def pauses(client: RunningTunnel, remote: Remote) -> float:
    """Seconds until it dials again."""
    return client_role(client)._dials.until(remote.server) - now()


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
                assert 2.0**failures / 2 <= seconds + 0.05 < 2.0**failures + 1.5, between
            assert client.state == "waiting"

    run(scenario)


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
            assert now() - began < SOON_SECONDS
            # After a step of the clock the pauses begin from the shortest; a network alone forgets nothing.
            await until(lambda: pauses(client, dead.remote) > 0.0)
            is_short = pauses(client, dead.remote) < 2.1
            assert is_short is (news == "handle_clock_step")

    run(scenario)


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
        assert now() - began < 3.0
        await crosses(far, lan)
        assert server.records.statistics.control_drops.total() == 0
        assert pauses(client, nobody) < 0.0

    run(scenario)


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
            assert now() - began < 2.0
            await crosses(far, lan)

    run(scenario)


def test_a_dial_that_hangs_begins_again_when_the_network_changes_and_is_no_second_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled: list[socket.socket] = []

    def hang(sock: socket.socket, _: object) -> int:
        dialled.append(sock)
        return errno.EINPROGRESS

    class Hanging(socket.socket):
        """Its first packet is lost, and all that repeat it."""

        connect_ex = hang

    async def scenario(lab: Lab) -> None:
        from bridged.runtime.client import call_stream

        monkeypatch.setattr(call_stream.socket, "socket", Hanging)
        client, _ = await lab.client_of([Remote(Endpoint("127.0.0.1", 9, "tcp"), "tcp")])
        await until(lambda: dialled)
        # Longer than a round with one silent remote takes: the same connection goes on.
        await asyncio.sleep(3.3)
        assert len(dialled) == 1
        client.handle_network_change()
        await until(lambda: len(dialled) == 2, seconds=SOON_SECONDS)
        assert dialled[0].fileno() == -1

    run(scenario)
