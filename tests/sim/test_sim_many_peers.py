"""What one peer costs a server's control plane does not grow with the number of peers.

Cost is the number of function calls, so that no clock and no other program matters.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from typing import Any

from bridged.addresses import Endpoint
from bridged.dataplane.contract import PeerFloated
from bridged.protocol.packets.wrap import WrapChannel
from bridged.protocol.role import Role
from bridged.protocol.session.events import SendDatagram
from bridged.protocol.session.session import Session
from bridged.protocol.session.states import SessionState
from bridged.runtime.server.server import ServerRole
from bridged.runtime.tunnels.adapter import AttachedTap
from bridged.runtime.tunnels.tunnel import RunningTunnel
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.units import MonotonicSeconds
from tests.sim.noisy_wire import UNIX_START, engine_factory, settings, wrap_keys

NOW = MonotonicSeconds(1000.0)


class NoPlane:
    """A data plane that carries nothing; control packets stay in `sent`."""

    name = "none"

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Endpoint]] = []

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        self.sent.append((datagram, destination))

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class Server:
    """A server with many clients, driven packet by packet; `calls` counts what the server did."""

    def __init__(self, clients: int) -> None:
        self.plane = NoPlane()
        plan = TunnelPlan(
            "server",
            "br0",
            settings(Role.SERVER, "tls-crypt"),
            engine_factory("server", "server"),
            wrap_keys("tls-crypt", Role.SERVER),
            peers_limit=1000,
            duplicate_names=True,
        )
        tap = AttachedTap("tap0", "02:00:00:00:00:01", reopen=lambda: None)
        plane: Any = self.plane
        self.tunnel = RunningTunnel(plan, plane, ServerRole, tap, now=lambda: NOW)
        self.calls = 0
        draw = random.Random(1)
        self.clients = {
            Endpoint("192.0.2.1", 1000 + number): Session(
                settings(Role.CLIENT, "tls-crypt"),
                engine_factory("client", "client"),
                draw.randbytes,
                WrapChannel(wrap_keys("tls-crypt", Role.CLIENT), int(UNIX_START)),
                draw.randbytes(8),
                NOW,
            )
            for number in range(clients)
        }

    def count(self, step: Callable[..., None], *arguments: Any) -> None:
        def note(frame: object, event: str, argument: object) -> None:
            self.calls += event == "call"

        sys.setprofile(note)
        try:
            step(*arguments)
            self.tunnel.sessions.rearm()
        finally:
            sys.setprofile(None)

    def settle(self) -> int:
        """Carry packets both ways until none is left; the server's calls meanwhile."""
        before = self.calls
        while True:
            packets = [
                (event.datagram, endpoint)
                for endpoint, client in self.clients.items()
                for event in iter(client.poll_event, None)
                if isinstance(event, SendDatagram)
            ]
            for datagram, endpoint in packets:
                self.count(self.tunnel.role.receive_control, datagram, endpoint)
            answers, self.plane.sent = self.plane.sent, []
            for datagram, endpoint in answers:
                self.clients[endpoint].receive_datagram(datagram, NOW)
            if not packets and not answers:
                return self.calls - before


def costs(clients: int) -> dict[str, float]:
    """Calls for each client: handshake, renegotiation; and calls for one float and one wake-up."""

    async def measure() -> dict[str, float]:
        server = Server(clients)
        found = {"handshake": server.settle() / clients}
        assert all(client.state is SessionState.ESTABLISHED for client in server.clients.values())
        for client in server.clients.values():
            assert client.request_renegotiation("manual", NOW)
        found["renegotiation"] = server.settle() / clients
        assert server.tunnel.records.statistics.renegotiations["peer", "established"] == clients
        link = next(iter(server.tunnel.links.values()))
        server.calls = 0
        server.count(
            server.tunnel.events.handle, PeerFloated(link.handle, Endpoint("192.0.2.2", 1), link.endpoint)
        )
        found["float"] = server.calls
        server.calls = 0
        server.count(server.tunnel.sessions._handle_timer)
        found["wake-up"] = server.calls
        return found

    return asyncio.run(measure())


def test_a_peer_costs_the_same_among_few_as_among_many() -> None:
    few, many = costs(3), costs(60)
    for what, calls in many.items():
        limit = few[what] * 1.1 + 5
        assert calls <= limit, f"{what}: {few[what]:.0f} calls among 3 peers, {calls:.0f} among 60"


def test_a_renegotiation_costs_no_more_than_the_handshake_did() -> None:
    found = costs(20)
    assert found["renegotiation"] <= found["handshake"]
