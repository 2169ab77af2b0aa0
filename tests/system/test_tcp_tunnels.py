"""Tunnels over TCP in this process: beside UDP, through a server's door, and for mixed remotes."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import sys
import termios
from contextlib import suppress

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.dataplane.contract import STREAM_GROWN_OCTETS
from bridged.dataplane.portable.plane import PortableDataPlane
from bridged.protocol.session import session
from bridged.runtime.server import connection_shares, port_share, tcp_door
from bridged.runtime.tunnels.tunnel import RunningTunnel
from tests.lab.waiting import until
from tests.system.loopback_lab import Lab, crosses, endpoint, pass_on, run, server_role

MUCH = 8 << 20
FLIGHT_OCTETS = 1000
"""More than what a server sends before its certificate, and less than with it."""
RESET_LENGTH = (54).to_bytes(2, "big")


def tcp_endpoint(server: RunningTunnel) -> Endpoint:
    (found,) = server.role.tcp_endpoints
    return found


def over_tcp(server: RunningTunnel) -> Remote:
    return Remote(tcp_endpoint(server), "tcp")


def streams(tunnel: RunningTunnel) -> int:
    """Connections that the data plane has."""
    assert isinstance(tunnel.dataplane, PortableDataPlane)
    return len(tunnel.dataplane._streams.by_descriptor)


async def stranger(server: RunningTunnel) -> socket.socket:
    made = socket.create_connection((tcp_endpoint(server).host, tcp_endpoint(server).port))
    made.setblocking(False)
    return made


async def is_cut_off(connection: socket.socket) -> None:
    def ended() -> bool:
        try:
            return connection.recv(100) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    await until(ended)


def dropped(server: RunningTunnel, reason: str) -> int:
    return server.records.statistics.control_drops["receive", reason]


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


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(2)])
def test_what_does_not_speak_openvpn_is_cut_off_and_counted(octets: bytes) -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server(tcp=True)
        with await stranger(server) as connection:
            connection.send(octets)
            await is_cut_off(connection)
        assert dropped(server, "bad_opcode") == 1
        assert server_role(server).admission["connected"] == 0

    run(scenario)


@pytest.mark.parametrize("octets", [b"", RESET_LENGTH, RESET_LENGTH + b"\x38" + bytes(20)])
def test_whoever_is_silent_or_slow_is_cut_off(octets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_door, "FIRST_SECONDS", 0.3)
    monkeypatch.setattr(tcp_door, "LOOK_SECONDS", 0.1)

    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True)
        with await stranger(server) as connection:
            connection.send(octets or b"")
            _, far = await lab.client_of([over_tcp(server)])
            await crosses(far, lan)
            await is_cut_off(connection)
        assert dropped(server, "peer_limit") == 1

    run(scenario)


def test_a_connection_without_a_session_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_door, "SESSION_SECONDS", 0.3)
    monkeypatch.setattr(tcp_door, "LOOK_SECONDS", 0.1)

    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server(tcp=True)
        with await stranger(server) as connection:
            # It looks like a hard reset, but its wrap is wrong.
            connection.send(RESET_LENGTH + b"\x38" + bytes(53))
            await until(lambda: streams(server) == 1)
            await is_cut_off(connection)
        await until(lambda: not streams(server))

    run(scenario)


def buffers(tunnel: RunningTunnel) -> list[int]:
    """What the kernel keeps of each connection that the data plane has, at most, in bytes."""
    assert isinstance(tunnel.dataplane, PortableDataPlane)
    found = tunnel.dataplane._streams.by_descriptor.values()
    return sorted(stream._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for stream in found)


def test_the_kernel_keeps_little_for_a_stranger_and_more_for_a_client() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True)
        with await stranger(server) as connection:
            connection.send(RESET_LENGTH + b"\x38" + bytes(53))
            await until(lambda: streams(server) == 1)
            assert buffers(server)[0] <= 2 * tcp_door.STRANGER_OCTETS
            _, far = await lab.client_of([over_tcp(server)])
            await crosses(far, lan)
            few, many = buffers(server)
            assert few <= 2 * tcp_door.STRANGER_OCTETS and many >= STREAM_GROWN_OCTETS
            # As if it began a packet of 64 KiB.
            connection.send(b"\xff\xff" + bytes(100))
            await is_cut_off(connection)
        await until(lambda: streams(server) == 1)
        await crosses(lan, far)

    run(scenario)


def test_whoever_reads_nothing_of_a_shared_port_fills_little_memory() -> None:
    taken = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        writer.write(bytes(MUCH))
        outgoing = bytearray(4)
        with suppress(ConnectionError):
            for _ in range(30):
                await asyncio.sleep(0.02)
                fcntl.ioctl(writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, outgoing)
                own = writer.transport.get_write_buffer_size() + int.from_bytes(outgoing, sys.byteorder)
                taken = MUCH - own
        writer.transport.abort()

    async def scenario(lab: Lab) -> None:
        web = await asyncio.start_server(answer, "127.0.0.1", 0)
        server, _ = await lab.server(tcp=True, port_share=Endpoint(*web.sockets[0].getsockname()))
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((tcp_endpoint(server).host, tcp_endpoint(server).port))
            connection.setblocking(False)
            connection.send(b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: taken > 0)
            await asyncio.sleep(0.5)
            # Four buffers of the kernel, two of ours, and the stranger's own.
            assert 0 < taken < 512 * 1024
        web.close()

    run(scenario)


def test_many_silent_connections_keep_no_client_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_shares.ConnectionShares.__init__, "__defaults__", (20,))

    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True)
        silent = [await stranger(server) for _ in range(60)]
        _, far = await lab.client_of([over_tcp(server)])
        await crosses(far, lan)
        assert server_role(server).admission["connected"] <= 20
        for connection in silent:
            connection.close()
        await until(lambda: server_role(server).admission["connected"] == 0)

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


def test_a_web_server_has_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + asked.split()[1] + b"x" * 300_000)
        await writer.drain()
        writer.close()

    async def scenario(lab: Lab) -> None:
        web = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = web.sockets[0].getsockname()
        server, lan = await lab.server(tcp=True, port_share=Endpoint(host, port))
        _, far = await lab.client_of([over_tcp(server)])
        await crosses(far, lan)
        near = tcp_endpoint(server)
        reader, writer = await asyncio.open_connection(near.host, near.port)
        writer.write(b"GET /page HT")
        await writer.drain()
        await crosses(lan, far)
        writer.write(b"TP/1.1\r\n\r\n")
        answered = await reader.read()
        assert answered.endswith(b"/page" + b"x" * 300_000)
        writer.close()
        await crosses(far, lan)
        monkeypatch.setattr(port_share, "SHARED_MAX", 0)
        full, _ = await lab.server(tcp=True, port_share=Endpoint(host, port))
        with await stranger(full) as connection:
            connection.send(b"GET / HTTP/1.1\r\n\r\n")
            await is_cut_off(connection)
        assert dropped(full, "peer_limit") == 1
        web.close()

    run(scenario)


def test_a_transfer_in_one_direction_outlives_the_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for number in range(10):
            writer.write(bytes([number]))
            await asyncio.sleep(0.1)
        # Now nothing moves any more.
        assert not await reader.read()
        writer.close()

    async def scenario(lab: Lab) -> None:
        monkeypatch.setattr(port_share, "IDLE_SECONDS", 0.5)
        web = await asyncio.start_server(answer, "127.0.0.1", 0)
        server, _ = await lab.server(tcp=True, port_share=Endpoint(*web.sockets[0].getsockname()))
        near = tcp_endpoint(server)
        reader, writer = await asyncio.open_connection(near.host, near.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.readexactly(10) == bytes(range(10))
        with suppress(ConnectionResetError):
            assert not await reader.read()
        writer.close()
        web.close()

    run(scenario)


def test_one_network_cannot_hold_all_places_of_the_shared_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readuntil(b"\r\n\r\n")).split()[1])
        await reader.read()
        writer.close()

    async def scenario(lab: Lab) -> None:
        monkeypatch.setattr(port_share, "SHARED_MAX", 3)
        web = await asyncio.start_server(answer, "127.0.0.1", 0)
        server, _ = await lab.server(tcp=True, port_share=Endpoint(*web.sockets[0].getsockname()))
        near = tcp_endpoint(server)
        opened = []
        for source in ("127.0.1.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.2.1"):
            reader, writer = await asyncio.open_connection(near.host, near.port, local_addr=(source, 0))
            opened.append((reader, writer))
            writer.write(b"GET /x HTTP/1.1\r\n\r\n")
            assert await reader.readexactly(2) == b"/x"
        for reader, _ in opened[1:3]:
            with suppress(ConnectionResetError):
                assert not await reader.read()
        await asyncio.sleep(0)
        for reader, writer in (opened[0], *opened[3:]):
            assert not reader.at_eof()
            writer.close()
        web.close()

    run(scenario)
