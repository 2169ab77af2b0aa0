"""Tunnels in this process with real TLS and portable data planes over the loopback interface.

Socket pairs stand for the TAP adapters; one datagram is one frame.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from bridged.addresses import Endpoint, MacAddress, Remote
from bridged.dataplane.contract import DataplaneSettings, TapPort
from bridged.dataplane.portable.plane import PortableDataPlane
from bridged.protocol.role import Role
from bridged.runtime.client.client import ClientRole
from bridged.runtime.server.server import ServerRole
from bridged.runtime.tunnels.adapter import AttachedTap
from bridged.runtime.tunnels.proxy import ProxySettings
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.runtime.tunnels.tunnel_role import RoleMaker
from bridged.units import Octets
from tests.lab.waiting import until
from tests.sim.noisy_wire import engine_factory, settings, wrap_keys

FRAME = bytes.fromhex("ffffffffffff0200000000010800") + bytes(range(64))


class Host:
    """The LAN side of one tunnel."""

    def __init__(self) -> None:
        self.lan, self.tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.lan.setblocking(False)
        self.tap.setblocking(False)

    def port(self, number: int) -> TapPort:
        mac = MacAddress.parse(f"02:00:00:00:00:{number:02x}")
        return TapPort((self.tap.fileno(),), f"pair{number}", mac, Octets(1500))

    def close(self) -> None:
        self.lan.close()
        self.tap.close()


class Lab:
    """Makes tunnels and ends them, in the order of their making."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._made = 0

    async def __aenter__(self) -> Lab:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def server(
        self,
        *,
        port: int = 0,
        peers_limit: int = 8,
        mode: str = "tls-crypt",
        peer_retention: float = float("inf"),
        memory: Path | None = None,
        make_role: RoleMaker = ServerRole,
        tcp: bool = False,
        tcp_listeners: int = 1,
        port_share: Endpoint | None = None,
        identity: str = "server",
    ) -> tuple[RunningTunnel, Host]:
        plan = TunnelPlan(
            "server",
            "br0",
            settings(Role.SERVER, mode),
            engine_factory(identity, "server"),
            wrap_keys(mode, Role.SERVER),
            peers_limit=peers_limit,
            peer_retention=peer_retention,
            memory=memory,
            listen_tcp=(Endpoint("127.0.0.1", port, "tcp"),) * tcp_listeners if tcp else (),
            port_share=port_share,
        )
        # A port that is free for TCP may be taken for UDP.
        return await self._start(make_role, plan, Endpoint("127.0.0.1", 0 if tcp else port))

    async def client(
        self, to: Endpoint, name: str = "client", mode: str = "tls-crypt", **changes: object
    ) -> tuple[RunningTunnel, Host]:
        return await self.client_of([Remote(to)], name, mode, **changes)

    async def client_of(
        self,
        remotes: Iterable[Remote],
        name: str = "client",
        mode: str = "tls-crypt",
        *,
        local: Endpoint | None = None,
        memory: Path | None = None,
        proxy: ProxySettings | None = None,
        is_shuffled: bool = False,
        **changes: object,
    ) -> tuple[RunningTunnel, Host]:
        plan = TunnelPlan(
            name,
            "br0",
            settings(Role.CLIENT, mode, **changes),
            engine_factory(name, "client"),
            wrap_keys(mode, Role.CLIENT),
            remotes=tuple(remotes),
            shuffles_remotes=is_shuffled,
            local=local,
            memory=memory,
            proxy=proxy,
        )
        return await self._start(ClientRole, plan, None)

    async def _start(
        self, make_role: RoleMaker, plan: TunnelPlan, bind: Endpoint | None
    ) -> tuple[RunningTunnel, Host]:
        self._made += 1
        host = Host()
        self._stack.callback(host.close)
        port = host.port(self._made)
        plane = PortableDataPlane(DataplaneSettings(plan.name, port, bind))
        tap = AttachedTap(port.name, str(port.mac), reopen=lambda: None)
        tunnel = RunningTunnel(plan, plane, make_role, tap)
        await tunnel.start()
        self._stack.push_async_callback(tunnel.stop)
        return tunnel, host


async def crosses(source: Host, target: Host) -> None:
    """A frame put into one LAN comes out of the other."""

    def arrived() -> bool:
        source.lan.send(FRAME)
        try:
            return target.lan.recv(4096) == FRAME
        except BlockingIOError:
            return False

    await until(arrived)


async def pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    note: Callable[[int], object] = lambda passed: None,
) -> None:
    """One direction of a relay, until it ends; `note` hears how many bytes have passed."""
    passed = 0
    while octets := await reader.read(1 << 16):
        writer.write(octets)
        await writer.drain()
        passed += len(octets)
        note(passed)
    writer.close()


def server_role(tunnel: RunningTunnel) -> ServerRole:
    assert isinstance(tunnel.role, ServerRole)
    return tunnel.role


def client_role(tunnel: RunningTunnel) -> ClientRole:
    assert isinstance(tunnel.role, ClientRole)
    return tunnel.role


def endpoint(tunnel: RunningTunnel) -> Endpoint:
    found = tunnel.dataplane.local_endpoint
    assert found is not None
    return found


def tcp_endpoint(server: RunningTunnel) -> Endpoint:
    (found,) = server.role.tcp_endpoints
    return found


def over_tcp(server: RunningTunnel) -> Remote:
    return Remote(tcp_endpoint(server), "tcp")


def streams(tunnel: RunningTunnel) -> int:
    """Connections that the data plane has."""
    assert isinstance(tunnel.dataplane, PortableDataPlane)
    return len(tunnel.dataplane._streams.by_descriptor)


def dropped(server: RunningTunnel, reason: str) -> int:
    return server.records.statistics.control_drops["receive", reason]


@contextmanager
def silent(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """Somebody takes every datagram and never answers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        sock.setblocking(False)
        yield sock


def sources(sock: socket.socket) -> list[int]:
    """The ports that have written there, each once, in order."""
    found: dict[int, None] = {}
    while True:
        try:
            found[sock.recvfrom(2048)[1][1]] = None
        except BlockingIOError:
            return list(found)


def run(scenario: Callable[[Lab], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(40), Lab() as lab:
            await scenario(lab)

    asyncio.run(bounded())
