"""Where a server takes TCP clients in: strangers, their times and places, and the shared port."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import socket
import sys
import termios
from contextlib import suppress

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.dataplane.contract import STREAM_GROWN_OCTETS
from bridged.dataplane.portable.plane import PortableDataPlane
from bridged.runtime.server import connection_shares, port_share, tcp_door
from bridged.runtime.tunnels.tunnel import RunningTunnel
from tests.lab.waiting import until
from tests.system.loopback_lab import (
    Lab,
    crosses,
    dropped,
    over_tcp,
    pass_on,
    run,
    server_role,
    streams,
    tcp_endpoint,
)

MUCH = 8 << 20
FORGED_RESET = (54).to_bytes(2, "big") + b"\x38" + bytes(53)
"""It looks like a hard reset, but its wrap is wrong."""


def connected(near: Endpoint, port: int = 0) -> socket.socket:
    """A connection from this port, also where others come from there; 0: from a free one."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.connect((near.host, near.port))
    made.setblocking(False)
    return made


async def stranger(server: RunningTunnel) -> socket.socket:
    return connected(tcp_endpoint(server))


async def is_cut_off(connection: socket.socket) -> None:
    def ended() -> bool:
        try:
            return connection.recv(100) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    await until(ended)


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


@pytest.mark.parametrize("octets", [b"", FORGED_RESET[:2], FORGED_RESET[:23]])
def test_whoever_is_silent_or_slow_is_cut_off(octets: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_door, "FIRST_SECONDS", 2.0)
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
            connection.send(FORGED_RESET)
            await until(lambda: streams(server) == 1)
            await is_cut_off(connection)
        await until(lambda: not streams(server))

    run(scenario)


def test_a_connection_is_given_up_when_descriptors_run_out() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True)
        _, most = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with await stranger(server) as connection:
            await until(lambda: server_role(server).admission["connected"] == 1)
            free = os.dup(connection.fileno())
            os.close(free)
            # The data plane wants a descriptor of its own.
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
            try:
                connection.send(FORGED_RESET)
                await until(lambda: server_role(server).admission["connected"] == 0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert not streams(server)
            await is_cut_off(connection)
        _, far = await lab.client_of([over_tcp(server)])
        await crosses(far, lan)

    run(scenario)


def taken_in(server: RunningTunnel) -> int:
    """Connections of strangers that are there, or were cut off."""
    return server_role(server).admission["connected"] + dropped(server, "peer_limit")


@pytest.mark.parametrize("ends", ["the first", "neither"])
def test_two_connections_from_one_endpoint_both_have_their_time(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("FIRST_SECONDS", 0.3), ("SESSION_SECONDS", 1.0), ("LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(tcp_door, name, seconds)

    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server(tcp=True, tcp_listeners=2)
        one, other = server.role.tcp_endpoints
        with connected(one) as first:
            first.send(FORGED_RESET)
            await until(lambda: streams(server) == 1)
            with connected(other, first.getsockname()[1]) as second:
                await until(lambda: taken_in(server) == 2)
                if ends == "the first":
                    first.close()
                    await until(lambda: not streams(server))
                await is_cut_off(second)
            if ends == "neither":
                await is_cut_off(first)
        await until(lambda: not streams(server))
        assert server_role(server).admission["connected"] == 0

    run(scenario)


def test_whoever_comes_from_the_endpoint_of_a_client_takes_nothing_but_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a NAT that gives two hosts the same port, towards two addresses of the server."""
    for name, seconds in (("FIRST_SECONDS", 2.0), ("SESSION_SECONDS", 4.0), ("LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(tcp_door, name, seconds)
    ports, targets = list[int](), list[Endpoint]()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outgoing = connected(targets[0])
        ports.append(outgoing.getsockname()[1])
        far_reader, far_writer = await asyncio.open_connection(sock=outgoing)
        with suppress(ConnectionError):
            await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))

    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(tcp=True, tcp_listeners=2)
        one, other = server.role.tcp_endpoints
        targets.append(one)
        relay = await asyncio.start_server(forward, "127.0.0.1", 0)
        host, port = relay.sockets[0].getsockname()
        _, far = await lab.client_of([Remote(Endpoint(host, port, "tcp"), "tcp")])
        await crosses(far, lan)
        disconnects = server.records.book.record("client").disconnects
        with connected(other, ports[0]) as silent:
            await is_cut_off(silent)
        await crosses(lan, far)
        assert not disconnects
        with connected(other, ports[0]) as forger:
            forger.send(FORGED_RESET)
            await until(lambda: disconnects)
            await is_cut_off(forger)
        await crosses(far, lan)
        assert disconnects == {"transport_closed": 1} and len(ports) == 2
        relay.close()

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
            connection.send(FORGED_RESET)
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
        monkeypatch.setattr(port_share, "IDLE_SECONDS", 2.0)
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
