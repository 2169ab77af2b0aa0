"""Server and client tunnels with real TLS and real data planes over the loopback interface.

Socket pairs stand for the TAP adapters; one datagram is one frame.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from sim.noisy_wire import engine_factory, settings, wrap_keys

from bridged.addresses import Endpoint, MacAddress, Remote
from bridged.dataplane.contract import DataplaneSettings, TapPort
from bridged.dataplane.portable.plane import PortableDataPlane
from bridged.protocol.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.role import Role
from bridged.protocol.wrap import NoWrap
from bridged.runtime import server as server_module
from bridged.runtime.client import ClientTunnel
from bridged.runtime.server import ServerTunnel
from bridged.runtime.tunnel import Tunnel
from bridged.runtime.tunnel_plan import TunnelPlan
from bridged.runtime.tunnel_status import tunnel_status
from bridged.units import KeyId, Octets

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
    ) -> tuple[Tunnel, Host]:
        plan = TunnelPlan(
            "server",
            "br0",
            settings(Role.SERVER, mode),
            engine_factory("server", "server"),
            wrap_keys(mode, Role.SERVER),
            peers_limit=peers_limit,
            peer_retention=peer_retention,
        )
        return await self._start(ServerTunnel, plan, Endpoint("127.0.0.1", port))

    async def client(
        self, to: Endpoint, name: str = "client", mode: str = "tls-crypt"
    ) -> tuple[Tunnel, Host]:
        plan = TunnelPlan(
            name,
            "br0",
            settings(Role.CLIENT, mode),
            engine_factory(name, "client"),
            wrap_keys(mode, Role.CLIENT),
            remotes=(Remote(to),),
        )
        return await self._start(ClientTunnel, plan, None)

    async def _start(
        self, kind: type[Tunnel], plan: TunnelPlan, bind: Endpoint | None
    ) -> tuple[Tunnel, Host]:
        self._made += 1
        host = Host()
        self._stack.callback(host.close)
        tunnel = kind(plan, PortableDataPlane(DataplaneSettings(plan.name, host.port(self._made), bind)))
        await tunnel.start()
        self._stack.push_async_callback(tunnel.stop)
        return tunnel, host


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def crosses(source: Host, target: Host) -> None:
    """A frame put into one LAN comes out of the other."""

    def arrived() -> bool:
        source.lan.send(FRAME)
        try:
            return target.lan.recv(4096) == FRAME
        except BlockingIOError:
            return False

    await until(arrived)


def endpoint(tunnel: Tunnel) -> Endpoint:
    found = tunnel.dataplane.local_endpoint
    assert found is not None
    return found


def run(scenario: Callable[[Lab], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(40), Lab() as lab:
            await scenario(lab)

    asyncio.run(bounded())


def test_frames_cross_and_a_stop_is_told_and_counted() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server()
        client, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        await crosses(lan, far)
        await client.stop()
        await until(lambda: server.book.record("client").disconnects)
        assert dict(server.book.record("client").disconnects) == {"exit_notify": 1}

    run(scenario)


def test_a_peer_that_left_is_forgotten_after_its_time_of_retention() -> None:
    async def scenario(lab: Lab) -> None:
        def shown() -> list[str]:
            return [peer.name for peer in tunnel_status(server).peers]

        server, lan = await lab.server(peer_retention=0.5)
        staying, far = await lab.client(endpoint(server))
        leaving, _ = await lab.client(endpoint(server), "second")
        await crosses(far, lan)
        await until(lambda: leaving.state == "connected" and len(shown()) == 2)
        await leaving.stop()
        await until(lambda: server.book.record("second").disconnects)
        assert sorted(shown()) == ["client", "second"]
        await until(lambda: shown() == ["client"], 3)
        assert staying.state == "connected"

    run(scenario)


def test_a_client_comes_back_to_a_server_that_restarts_without_waiting_for_the_old_session() -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        client, far = await lab.client(endpoint(server))
        await until(lambda: client.state == "connected")
        port = endpoint(server).port
        await server.stop()
        await until(lambda: client.state != "connected", 2)
        again, lan = await lab.server(port=port)
        before = asyncio.get_running_loop().time()
        await until(lambda: client.state == "connected")
        # The session that heard the farewell is still draining for 5 s.
        assert asyncio.get_running_loop().time() - before < 4
        await crosses(far, lan)
        assert again.statistics.handshakes["initial", "established"] == 1

    run(scenario)


def test_a_stop_after_an_earlier_end_still_waits_for_its_farewell() -> None:
    async def scenario(lab: Lab) -> None:
        server, _ = await lab.server()
        first, _ = await lab.client(endpoint(server))
        await until(lambda: server.book.record("client").connections == 1)
        await first.stop()
        await until(lambda: not server.links, 8)
        second, _ = await lab.client(endpoint(server), "second")
        await until(lambda: second.state == "connected")
        await server.stop()
        assert not server.links, "the farewell was acknowledged"

    run(scenario)


def test_a_peer_beyond_the_limit_is_told_so_and_disturbs_nobody() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(peers_limit=1)
        first, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        second, _ = await lab.client(endpoint(server), "second")
        await until(lambda: second.last_error)
        assert "no room" in str(second.last_error)
        assert server.statistics.handshakes["initial", "peer_limit"] >= 1
        assert first.state == "connected"
        await crosses(far, lan)

    run(scenario)


def test_a_site_that_comes_again_takes_the_place_of_its_past() -> None:
    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(peers_limit=1)
        first, _ = await lab.client(endpoint(server))
        await until(lambda: first.state == "connected")
        again, far = await lab.client(endpoint(server))
        await crosses(far, lan)
        record = server.book.record("client")
        assert record.connections == 2 and record.disconnects["replaced"] == 1
        assert again.state == "connected"

    run(scenario)


def open_half(target: Endpoint, number: int) -> None:
    """A stranger that goes as far as it can without a certificate, and then falls silent."""
    wire = NoWrap()
    session_id = number.to_bytes(8, "big")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(5)
        stranger.connect((target.host, target.port))
        reset = ControlHeader(Opcode.HARD_RESET_CLIENT_V2, KeyId(0), session_id)
        stranger.send(wire.seal(reset, 0, 0, serialize_body(ControlBody(message_id=0))))
        cookie = wire.open(stranger.recv(2048)).header.session_id
        ack = ControlHeader(Opcode.ACK_V1, KeyId(0), session_id)
        stranger.send(wire.seal(ack, 0, 0, serialize_body(ControlBody((0,), cookie))))


def test_strangers_with_half_a_handshake_take_no_place_and_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "UNAUTHENTICATED_MAX", 8)

    async def scenario(lab: Lab) -> None:
        server, lan = await lab.server(peers_limit=1, mode="none")
        for number in range(1, 31):
            await asyncio.to_thread(open_half, endpoint(server), number)
        await until(lambda: server.statistics.handshakes["initial", "peer_limit"] == 22)
        assert len(server.links) == 8
        _, far = await lab.client(endpoint(server), mode="none")
        await crosses(far, lan)
        assert server.book.record("client").connections == 1

    run(scenario)
