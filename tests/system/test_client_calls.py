"""A client finds a server that answers: dead remotes, refusals, silence, wrong names. Over loopback."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.dataplane.contract import PeerExpired
from bridged.errors import BridgedError, DataplaneError
from bridged.protocol.session.events import SessionDown
from bridged.runtime.client import name_watch, outage
from bridged.runtime.client.call_socket import CallSocket
from bridged.runtime.client.call_sockets import CallSockets
from bridged.runtime.tunnels.sessions import Sessions
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.units import Seconds
from tests.lab.bounds import at_most
from tests.lab.waiting import until
from tests.system.loopback_lab import Lab, client_role, crosses, endpoint, run, silent, sources


def now() -> float:
    return asyncio.get_running_loop().time()


def remote(sock: socket.socket) -> Remote:
    return Remote(Endpoint(*sock.getsockname()[:2]))


def closed_port() -> Remote:
    with silent() as sock:
        return remote(sock)


class Names:
    """Stands for the system's resolver: names have the `addresses` that a test sets, or those of `others`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: Endpoint) -> None:
        self.addresses = list(addresses)
        self.others: dict[str, list[Endpoint]] = {}
        self.asked = 0
        monkeypatch.setattr(socket, "getaddrinfo", self._ask)

    def _ask(self, host: str, *_: Any) -> list[Any]:
        self.asked += 1
        found = self.others.get(host, self.addresses)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (a.host, a.port)) for a in found]


async def connected(client: RunningTunnel, most: float | None = None) -> float:
    """Seconds until it is: at most so many."""
    began = now()
    await until(lambda: client.state == "connected", seconds=15.0)
    took = now() - began
    if most is not None:
        at_most(took, most, "connecting")
    return took


@pytest.mark.measures
def test_a_dead_first_remote_costs_three_seconds_and_what_worked_last_is_first_even_after_a_restart(
    tmp_path: Path,
) -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        with silent() as dead:
            remotes = [remote(dead), Remote(endpoint(server))]
            client, far = await lab.client_of(remotes, memory=tmp_path / "client.json")
            assert await connected(client, most=4.0) > 2.9
            await crosses(far, lan)
            await client.stop()
            again, far = await lab.client_of(remotes, memory=tmp_path / "client.json")
            await connected(again, most=1.5)
            await crosses(far, lan)

    run(scenario)


def called(client: RunningTunnel) -> str | None:
    """The server that was called last."""
    return client.role.remote


@pytest.mark.measures
def test_shuffled_clients_spread_over_the_servers_whatever_worked_before_the_restart(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        with silent() as one, silent() as other:
            remotes = [remote(one), remote(other)]
            memory = tmp_path / "client.json"
            first_called: set[int] = set()
            for _ in range(30):
                client, _ = await lab.client_of(remotes, is_shuffled=True, memory=memory)
                await until(partial(called, client))
                first_called.add(remotes.index(Remote.parse(str(called(client)))))
                await client.stop()
                if len(first_called) == 2:
                    break
            assert first_called == {0, 1}
        for _ in range(2):
            remotes = [closed_port(), Remote(endpoint(server)), closed_port()]
            client, _ = await lab.client_of(remotes, is_shuffled=True, memory=memory)
            await connected(client, most=2.0)
            await client.stop()

    run(scenario)


@pytest.mark.measures
def test_an_icmp_refusal_brings_the_next_remote_at_once_and_is_said() -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        first = closed_port()
        client, _ = await lab.client_of([first, Remote(endpoint(server))])
        await connected(client, most=1.5)

        refused, _ = await lab.client_of([first], "second")
        await until(lambda: "nobody listens there" in str(refused.records.last_error))
        assert str(first) in str(refused.records.last_error)

    run(scenario)


@pytest.mark.measures
def test_both_families_are_called_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        alive = endpoint(server)
        with silent("::1") as dead:
            Names(monkeypatch, Endpoint(*dead.getsockname()[:2]), alive)
            client, far = await lab.client_of([Remote.parse("hub.example:1194")])
            await connected(client, most=1.5)
            assert client.role.remote == str(alive)
            await crosses(far, lan)

    run(scenario)


def test_every_call_comes_from_another_port_unless_one_is_configured() -> None:
    ports: set[int] = set()

    def calling(sock: socket.socket) -> set[int]:
        ports.update(sources(sock))
        return ports

    async def scenario(lab: Lab) -> None:
        with silent() as one, silent() as other, silent() as spare:
            local = Endpoint(*spare.getsockname())
            spare.close()
            await lab.client_of([remote(one)])
            await lab.client_of([remote(other)], "second", local=local)
            await until(lambda: len(calling(one)) >= 2, "a call every three seconds")
            assert sources(other) == [local.port]

    run(scenario)


def test_a_fixed_port_that_is_taken_is_said_at_the_start() -> None:
    async def scenario(lab: Lab) -> None:
        with silent() as holder, pytest.raises(DataplaneError, match="cannot bind UDP"):
            await lab.client_of([closed_port()], local=Endpoint(*holder.getsockname()))

    run(scenario)


def test_a_client_with_a_fixed_port_connects_and_comes_back_from_it() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        with silent() as spare:
            local = Endpoint(*spare.getsockname())
        client, far = await lab.client_of([Remote(endpoint(server))], local=local)
        for _ in range(2):
            await connected(client)
            await crosses(far, lan)
            await crosses(lan, far)
            assert client.dataplane.local_endpoint == local
            expire(client)
            await until(lambda: client.state != "connected")

    run(scenario)


def expire(client: RunningTunnel) -> None:
    """As if nothing had been heard for the time of ping-restart."""
    (link,) = client.links.values()
    client.events.handle(PeerExpired(link.handle))


@pytest.mark.measures
def test_a_new_connection_after_silence_comes_from_another_port_and_carries_frames() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        client, far = await lab.client(endpoint(server))
        await connected(client)
        before = client.dataplane.local_endpoint
        expire(client)
        await connected(client, most=1.5)
        assert client.dataplane.local_endpoint not in (before, None)
        await crosses(far, lan)
        await crosses(lan, far)
        assert server.records.statistics.name_conflicts == 0, "one machine that comes again is no conflict"

    run(scenario)


class FirstAnswerOnly(asyncio.DatagramProtocol):
    """A server that dies after its first answer: a relay that passes one datagram back, and nothing more."""

    def __init__(self, server: Endpoint) -> None:
        self.server = (server.host, server.port)
        self.client: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, source: Any) -> None:
        if source != self.server and self.client is None:
            self.client = source
            self.transport.sendto(data, self.server)
        elif source == self.server and self.client is not None:
            self.transport.sendto(data, self.client)
            self.server = ("", 0)


@pytest.mark.measures
def test_a_server_that_falls_silent_after_its_first_answer_costs_three_seconds() -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: FirstAnswerOnly(endpoint(server)), local_addr=("127.0.0.1", 0)
        )
        first = Remote(Endpoint(*transport.get_extra_info("sockname")))
        client, _ = await lab.client_of([first, Remote(endpoint(server))])
        assert await connected(client, most=4.5) > 2.9
        assert client.records.statistics.handshakes["initial", "timeout"] == 1
        transport.close()

    run(scenario)


@pytest.mark.measures
def test_a_first_wrong_address_of_a_name_costs_no_more_than_the_next_look_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(name_watch, "AGAIN_SECONDS", 0.3)

    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        with silent() as wrong:
            names = Names(monkeypatch, Endpoint(*wrong.getsockname()))
            client, _ = await lab.client_of([Remote.parse("hub.example:1194")])
            await until(lambda: sources(wrong))
            names.addresses = [endpoint(server)]
            await connected(client, most=2.0)
            asked = names.asked
            await asyncio.sleep(3 * name_watch.AGAIN_SECONDS)
            assert names.asked == asked, "a client that is connected looks up nothing"

    run(scenario)


def test_silence_is_said_and_the_reason_before_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "SILENT_SECONDS", 1.0)

    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server(peers_limit=1)
        first, _ = await lab.client(endpoint(server), "second")
        await connected(first)
        second, _ = await lab.client(endpoint(server))
        await until(lambda: "no room" in str(second.records.last_error))
        port = endpoint(server).port
        await server.stop()
        with silent(port=port):
            await until(lambda: "no answer for " in str(second.records.last_error), seconds=15)
            assert "no room" in str(second.records.last_error)

    run(scenario)


@pytest.mark.measures
def test_a_step_of_the_clock_or_a_new_network_ends_every_wait() -> None:
    async def scenario(lab: Lab) -> None:
        with silent() as sock:
            client, _ = await lab.client_of([remote(sock)])
            for wake in (client.handle_clock_step, client.handle_network_change):
                # As after many refusals: the next round would come in half a minute or more.
                for _ in range(20):
                    client_role(client)._backoff.note_refusal(now(), 0.0)
                    client_role(client)._backoff.end_round(now())
                assert client_role(client)._backoff.until > now() + 25
                wake()
                began = now()
                await until(
                    lambda: client_role(client)._backoff.until <= now() and len(sources(sock)) >= 1, seconds=5
                )
                at_most(now() - began, 2.5, "the next call")

    run(scenario)


@pytest.mark.measures
def test_another_address_of_a_name_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_watch, "AGAIN_SECONDS", 0.3)

    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        with silent() as wrong:
            names = Names(monkeypatch, Endpoint(*wrong.getsockname()))
            client, _ = await lab.client_of([Remote.parse("hub.example:1194")])
            await until(lambda: sources(wrong))
            for _ in range(20):
                client_role(client)._backoff.note_refusal(now(), 0.0)
                client_role(client)._backoff.end_round(now())
            client_role(client)._order.begin(client_role(client)._backoff.until)
            names.addresses = [endpoint(server)]
            await connected(client, most=2.0)

    run(scenario)


@pytest.mark.parametrize(
    ("news", "ends"),
    [
        ("a first name", False),
        ("another server moves", False),
        ("one more address", False),
        ("another address", True),
        ("another address of two", True),
    ],
)
def test_names_end_a_pause_that_a_server_asked_for_only_where_its_address_is_gone(
    monkeypatch: pytest.MonkeyPatch, news: str, ends: bool
) -> None:
    monkeypatch.setattr(name_watch, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(name_watch, "FAILED_SECONDS", 0.1)

    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        with silent() as asking, silent() as second:
            first, kept = (Endpoint(*sock.getsockname()) for sock in (asking, second))
            names = Names(monkeypatch, first, *[kept] * ("of two" in news))
            names.others["other.example"] = [] if news == "a first name" else [kept]
            remotes = [Remote.parse(f"{name}.example:1194") for name in ("hub", "other")]
            client, _ = await lab.client_of(remotes)
            role = client_role(client)
            await until(
                lambda: sources(asking) and (news == "a first name" or remotes[1] in role._order._known)
            )
            (call,) = (call for call in role._calls if call.link.endpoint == first)
            refusal = SessionDown("auth_failed", "busy", False, Seconds(0.1), Seconds(60.0), "addr")
            role._handle_down(call.link, refusal)
            assert role._backoff.until > now() + 50
            match news:
                case "a first name" | "another server moves":
                    names.others["other.example"] = [endpoint(server)]
                case "one more address":
                    names.addresses.append(endpoint(server))
                case _:
                    names.addresses = [*names.addresses[1:], endpoint(server)]
            of = remotes[news in ("a first name", "another server moves")]
            await until(lambda: endpoint(server) in role._order._known.get(of, ()))
            if ends:
                await connected(client)
            else:
                assert role._backoff.until > now() + 30
                assert client.state != "connected"

    run(scenario)


def test_a_data_plane_that_does_not_take_the_socket_loses_no_fixed_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        with silent() as spare:
            local = Endpoint(*spare.getsockname())
        client, far = await lab.client_of([Remote(endpoint(server))], local=local)
        plane, tries = client.dataplane, []
        use_socket = plane.use_socket

        def refuse(descriptor: int | None) -> None:
            tries.append(descriptor)
            if descriptor is not None and tries.count(descriptor) == 1:
                raise DataplaneError("system", "too many open files")
            use_socket(descriptor)

        monkeypatch.setattr(plane, "use_socket", refuse)
        await connected(client)
        assert tries[0] == tries[-1] is not None
        await crosses(far, lan)

    run(scenario)


@pytest.mark.measures
def test_a_stop_right_after_news_of_the_network_ends_at_once() -> None:
    async def scenario(lab: Lab) -> None:
        client, _ = await lab.client_of([closed_port()])
        await asyncio.sleep(0.05)
        client.handle_network_change()
        began = now()
        await client.stop()
        at_most(now() - began, 1.0, "the stop")

    run(scenario)


def test_a_forged_refusal_ends_no_connection() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        client, far = await lab.client(endpoint(server))
        await connected(client)
        for handle in client.links:
            through = client_role(client)._sockets.of(handle)
            assert through is not None
            client_role(client)._take_refusal(through, endpoint(server), "nobody listens there")
        await crosses(far, lan)
        assert client.state == "connected" and client.records.book.record("server").disconnects.total() == 0

    run(scenario)


def test_two_machines_with_one_certificate_are_named_counted_and_the_loser_is_told_and_waits() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        loser, _ = await lab.client(endpoint(server))
        await connected(loser)
        (before,) = (str(link.endpoint) for link in server.links.values())
        winner, far = await lab.client(endpoint(server))
        await connected(winner)
        await until(lambda: server.records.statistics.name_conflicts)
        (after,) = (str(link.endpoint) for link in server.links.values())
        expected = f"two machines use the certificate of client: {before} and {after}"
        assert server.records.last_error == expected
        await until(lambda: "does another machine use this profile?" in str(loser.records.last_error))
        # It would be back within a second if it did not wait.
        await asyncio.sleep(2.5)
        assert loser.state != "connected" and winner.state == "connected"
        assert server.records.book.record("client").connections == 2
        await crosses(far, lan)

    run(scenario)


def test_a_call_that_cannot_begin_leaves_no_socket_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[CallSocket] = []
    open_for = CallSockets.open_for

    def noted(sockets: CallSockets, to: Endpoint) -> CallSocket:
        made.append(open_for(sockets, to))
        return made[-1]

    def fails(*_: object, **__: object) -> None:
        raise BridgedError("tls_failed", "no TLS to be had")

    async def scenario(lab: Lab) -> None:
        monkeypatch.setattr(CallSockets, "open_for", noted)
        monkeypatch.setattr(Sessions, "open", fails)
        with silent() as server:
            await lab.client_of([remote(server)])
            await until(lambda: len(made) >= 2)
            assert not any(through.is_open for through in made)

    run(scenario)
