"""Strangers and overload: garbage, spoofed resets, half-open sessions and full queues disturb nobody."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridged.protocol.keys.static_key import parse_static_key
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.packets.wrap import TlsCryptKeys, WrapChannel
from bridged.protocol.role import Role
from bridged.units import KeyId
from tests.lab import Bridged, Hub, Lab, Namespace, Process, Profile, bridged_daemon, garbage_flood
from tests.lab.bounds import at_least
from tests.lab.garbage_flood import PORT, flood
from tests.system.daemon_lab import own_kibioctets, pinging, stop_all, wait_reach

pytestmark = [pytest.mark.root, pytest.mark.alone, pytest.mark.measures]

GROWTH_KIBIOCTETS = 48 * 1024
FLOOD_SECONDS = 2.0
HALF_OPEN = 300
"""More than the server has places for handshakes."""


@dataclass(slots=True)
class Star:
    """A server, one connected client, and a second site: a stranger's, and later a new client's."""

    hub: Hub
    profile: Profile
    server: Bridged
    client: Bridged
    others: list[Bridged] = field(default_factory=list)

    def newcomer(self, name: str) -> Bridged:
        """A client that was never here before, not started."""
        identity = self.profile.authority.issue(name, "client")
        made = bridged_daemon.client(
            self.hub.clients[1], self.profile, identity, self.hub.server.wan_ipv4, name=name
        )
        self.others.append(made)
        return made


@contextmanager
def star(profile: Profile, **server_keys: Any) -> Iterator[Star]:
    with Lab("flood") as lab:
        hub = Hub(lab, 2)
        issue = profile.authority.issue
        server = bridged_daemon.server(
            hub.server, profile, issue("server", "server"), tunnel=server_keys
        ).start()
        client = bridged_daemon.client(
            hub.clients[0], profile, issue("client", "client"), hub.server.wan_ipv4
        ).start()
        client.wait_connected()
        made = Star(hub, profile, server, client)
        yield made
        stop_all(*made.others, client, server)


@pytest.mark.parametrize("wrap", ["tls-crypt", "none"])
def test_flood_of_garbage_costs_no_ping_and_no_memory_and_keeps_nobody_out(wrap: Any) -> None:
    with star(Profile(wrap=wrap)) as made:
        hub = made.hub
        before = own_kibioctets(made.server)
        stranger = hub.clients[1].namespace
        with pinging(hub.clients[0].host, hub.server.host.ipv4, 0.02) as pings:
            pings.wait_for_answers(20)
            sent = stranger.call(flood, hub.server.wan_ipv4, FLOOD_SECONDS, 7, 4000)
            pings.wait_for_answers(20)
            pings.stop()
        at_least(sent, 2000, "packets of the flood")
        assert pings.lost() == 0
        assert own_kibioctets(made.server) - before < GROWTH_KIBIOCTETS
        assert made.server.log.count("\n") < 30, "a stranger must not fill the log"
        drops = made.server.tunnel()["control_drops"]
        assert sum(sum(reasons.values()) for reasons in drops.values()) > 0
        made.newcomer("newcomer").start().wait_connected(seconds=5.0)
        wait_reach(hub.clients[1].host, hub.server.host.ipv4, 3.0)


def test_new_client_connects_while_the_flood_goes_on() -> None:
    with star(Profile()) as made:
        hub = made.hub
        newcomer = made.newcomer("newcomer")
        process = _flooding(hub.clients[1].namespace, hub.server.wan_ipv4, 8.0)
        time.sleep(0.5)
        newcomer.start().wait_connected(seconds=7.0)
        process.stop()
        wait_reach(hub.clients[1].host, hub.server.host.ipv4, 3.0)


def _flooding(space: Namespace, target: str, seconds: float) -> Process:
    """The flood beside the test."""
    command = (sys.executable, garbage_flood.__file__, target, str(seconds), "3", "3000")
    return space.popen(*command, log="flood")


def test_three_hundred_half_open_sessions_disturb_nobody() -> None:
    """A holder of the tls-crypt key gets cookies back and opens sessions, but never says a word of TLS."""
    with star(Profile()) as made:
        hub = made.hub
        before = own_kibioctets(made.server)
        with pinging(hub.clients[0].host, hub.server.host.ipv4, 0.02) as pings:
            pings.wait_for_answers(20)
            opened = hub.clients[1].namespace.call(
                _open_halves, hub.server.wan_ipv4, made.profile.wrap_key, HALF_OPEN, seconds=60.0
            )
            assert opened == HALF_OPEN
            pings.wait_for_answers(20)
            pings.stop()
        assert pings.lost() == 0
        assert own_kibioctets(made.server) - before < GROWTH_KIBIOCTETS
        made.newcomer("newcomer").start().wait_connected(seconds=5.0)
        assert made.server.log.count("handshake_failed") < 40, "a stranger must not fill the log"


def _open_halves(target: str, key_text: str, count: int) -> int:
    """Open sessions and fall silent; how many of the hard resets were answered (they are rationed)."""
    keys = TlsCryptKeys(parse_static_key(key_text, "test"), Role.CLIENT)
    answered = 0
    deadline = time.monotonic() + 50
    while answered < count and time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.25)
            sock.connect((target, PORT))
            channel = WrapChannel(keys, int(time.time()))
            session_id = os.urandom(8)
            reset = ControlHeader(Opcode.HARD_RESET_CLIENT_V2, KeyId(0), session_id)
            sock.send(channel.wrap(reset, serialize_body(ControlBody(message_id=0))))
            try:
                opened = keys.open(sock.recv(2048))
            except TimeoutError:
                continue
            answered += 1
            ack = ControlHeader(Opcode.ACK_V1, KeyId(0), session_id)
            sock.send(channel.wrap(ack, serialize_body(ControlBody((0,), opened.header.session_id))))
            time.sleep(0.012)
    return answered
