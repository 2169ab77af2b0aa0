"""Tunnels over TCP in this process: beside UDP, for mixed remotes, and when a connection ends."""

from __future__ import annotations

import asyncio
import select
import socket
from contextlib import suppress

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.protocol.session import session
from tests.lab.waiting import until
from tests.system.loopback_lab import (
    Lab,
    crosses,
    endpoint,
    over_tcp,
    pass_on,
    run,
    server_role,
    streams,
    tcp_endpoint,
)

FLIGHT_OCTETS = 1000
"""More than what a server sends before its certificate, and less than with it."""


def test_clients_over_udp_and_tcp_are_on_one_switch_and_a_farewell_closes_the_connection() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True)
        by_tcp, far = await lab.client_of([over_tcp(server)])
        by_udp, other = await lab.client(endpoint(server), "second")
        await until(lambda: by_tcp.state == by_udp.state == "connected")
        for source, target in ((far, lan), (lan, far), (far, other), (other, far)):
            await crosses(source, target)
        assert by_tcp.role.remote == str(tcp_endpoint(server))
        assert streams(server) == streams(by_tcp) == 1
        await by_tcp.stop()
        await until(lambda: server.records.book.record("client").disconnects)
        assert dict(server.records.book.record("client").disconnects) == {"exit_notify": 1}
        await until(lambda: not streams(server))
        assert server_role(server).admission["connected"] == 0

    run(scenario)


@pytest.mark.parametrize("broken", ["tcp", "udp"])
def test_a_client_takes_the_next_remote_whatever_its_transport(broken: str) -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            nobody = taken.getsockname()[1]
        if broken == "tcp":
            remotes = [Remote(Endpoint("127.0.0.1", nobody, "tcp"), "tcp"), Remote(endpoint(server))]
        else:
            remotes = [Remote(Endpoint("127.0.0.1", nobody)), over_tcp(server)]
        client, far = await lab.client_of(remotes)
        await until(lambda: client.state == "connected")
        await crosses(far, lan)

    run(scenario)


def test_a_client_comes_back_when_its_connection_is_lost_and_when_its_server_restarts() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True)
        client, far = await lab.client_of([over_tcp(server)])
        await crosses(far, lan)
        port = tcp_endpoint(server).port
        (link,) = server.links.values()
        server.dataplane.close_stream(link.endpoint)
        await until(lambda: client.records.book.record("server").disconnects, seconds=3)
        await until(lambda: client.state == "connected")
        await crosses(far, lan)
        await server.stop()
        await until(lambda: client.state != "connected", seconds=2)
        again, lan = await lab.server(port=port, tcp=True)
        await until(lambda: client.state == "connected")
        await crosses(far, lan)
        assert streams(again) == 1

    run(scenario)


@pytest.mark.parametrize("ends", ["as the next call begins", "never"])
def test_a_refused_connection_that_lingers_does_no_harm_to_the_next(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server is slow to acknowledge the client's last words: both calls are at one endpoint meanwhile."""
    monkeypatch.setattr(session, "DRAIN_SECONDS", 1.0)
    may_end, targets = asyncio.Event(), list[Endpoint]()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = targets.pop(0)
        far_reader, far_writer = await asyncio.open_connection(target.host, target.port)
        is_first = bool(targets)
        outgoing = asyncio.create_task(pass_on(reader, far_writer))

        # Nothing that the client says to this certificate arrives.
        def note(passed: int) -> None:
            if is_first and passed >= FLIGHT_OCTETS:
                outgoing.cancel()

        incoming = asyncio.create_task(pass_on(far_reader, writer, note))
        try:
            await (may_end.wait() if is_first else incoming)
        finally:
            for task in (outgoing, incoming):
                task.cancel()
            writer.close()
            far_writer.close()

    async def scenario(lab: Lab) -> None:
        # Its certificate is not a server's.
        refused, _ = await lab.server(tcp=True, identity="client")
        server, lan = await lab.server(tcp=True)
        targets.extend([tcp_endpoint(refused), tcp_endpoint(server)])
        relay = await asyncio.start_server(forward, "127.0.0.1", 0)
        host, port = relay.sockets[0].getsockname()
        near = Endpoint(host, port, "tcp")
        client, far = await lab.client_of([Remote(near, "tcp")])
        handshakes = client.records.statistics.handshakes
        await until(lambda: handshakes)
        client.handle_clock_step()
        if ends != "never":
            may_end.set()
        await crosses(far, lan)
        # Meanwhile the session that was refused ends.
        await asyncio.sleep(1.5)
        await crosses(lan, far)
        assert handshakes == {("initial", "certificate_rejected"): 1, ("initial", "established"): 1}
        assert not client.records.book.record("server").disconnects
        may_end.set()
        relay.close()

    run(scenario)


def test_a_client_that_reads_nothing_stalls_no_other() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True)
        stalled, far = await lab.client_of([over_tcp(server)])
        _, other = await lab.client_of([over_tcp(server)], "second")
        await crosses(far, lan)
        stalled.dataplane.hold(lan=False, wan=True)
        for _ in range(1500):
            with suppress(BlockingIOError):
                lan.lan.send(b"\xff" * 6 + b"\x02" + bytes(5) + b"\x08\x00" + bytes(1400))
            if not _ % 50:
                await asyncio.sleep(0.001)
        await until(lambda: select.select([], [lan.lan], [], 0)[1])
        await crosses(other, lan)
        await crosses(lan, other)

    run(scenario)
