"""A server with several clients: who reaches whom, who is let in, and who is given up."""

from __future__ import annotations

import itertools
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.lab import HOST_PORT, Bridged, Host, Hub, Lab, Profile, bridged_daemon, wait_for
from tests.lab.frames import capturing, received_frames
from tests.system.daemon_lab import pinging, quick_neighbours, stop_all, wait_reach

pytestmark = [pytest.mark.root, pytest.mark.measures]

CLIENTS = 3
BURSTS, BURST = 15, 20
EXPERIMENTAL = b"\x88\xb6"
QUICK = {"ping_seconds": 1, "restart_seconds": 3}
# No machine is so slow that a start takes as long.
PATIENT = {"ping_seconds": 1, "restart_seconds": 60}


class Star:
    """One server and its clients, each with a certificate of its own, all connected."""

    def __init__(self, hub: Hub, server: dict[str, Any], keepalive: dict[str, Any]) -> None:
        self.hub = hub
        self.profile = Profile()
        self.identities = [
            self.profile.authority.issue(f"client-{number}", "client") for number in range(1, CLIENTS + 1)
        ]
        self.keepalive = keepalive
        for site in hub.sites:
            quick_neighbours(site.host)
        identity = self.profile.authority.issue("server", "server")
        self.server = bridged_daemon.server(
            hub.server, self.profile, identity, tunnel={"keepalive": keepalive, **server}
        ).start()
        self.clients: list[Bridged] = []

    def add_client(self, number: int, site_number: int = 0) -> Bridged:
        """Start client `number` (from 1), at its own site or at another one."""
        client = bridged_daemon.client(
            self.hub.clients[(site_number or number) - 1],
            self.profile,
            self.identities[number - 1],
            self.hub.server.wan_ipv4,
            tunnel={"keepalive": self.keepalive},
        )
        self.clients.append(client.start())
        return client

    def names(self) -> list[str]:
        """Names of the connected peers."""
        return sorted(peer["name"] for peer in self.server.connected_peers())


@contextmanager
def star(tag: str, connect: int, keepalive: dict[str, Any] = QUICK, **server: Any) -> Iterator[Star]:
    with Lab(tag) as lab:
        made = Star(Hub(lab, CLIENTS), server, keepalive)
        for number in range(1, connect + 1):
            made.add_client(number)
        for client in made.clients:
            client.wait_connected()
        made.server.wait_connected(connect)
        yield made
        stop_all(*made.clients, made.server)


def test_every_site_reaches_every_other_and_a_killed_client_is_given_up() -> None:
    with star("star", CLIENTS) as made:
        _all_pairs(made)
        _flows_between_all_sites_at_once(made)
        _killed_client_ages_out(made)


def _all_pairs(made: Star) -> None:
    hosts = [site.host for site in made.hub.sites]
    for first, second in itertools.permutations(hosts, 2):
        wait_reach(first, second.ipv4)
        first.ping(second.ipv4, count=2, interval_seconds=0.02)
        assert first.neighbour(second.ipv4) == second.mac
    for host in hosts[1:]:
        host.ping(hosts[0].ipv6, count=2, interval_seconds=0.02)


def _flows_between_all_sites_at_once(made: Star) -> None:
    """Bursts of numbered frames between all pairs: each flow arrives whole, in order, byte for byte."""
    hosts = [site.host for site in made.hub.sites]
    wanted: dict[tuple[str, str], list[bytes]] = {pair: [] for pair in _pairs(hosts)}
    with ExitStack() as stack:
        captures = stack.enter_context(capturing(*hosts))
        wires = {host.mac: stack.enter_context(_wire(host)) for host in hosts}
        for burst in range(BURSTS):
            for source, target in wanted:
                frames = [_numbered(source, target, burst * BURST + number) for number in range(BURST)]
                for frame in frames:
                    wires[source].send(frame)
                wanted[source, target] += frames
            time.sleep(0.01)
        arrived: dict[str, list[bytes]] = {host.mac: [] for host in hosts}

        def complete() -> bool:
            for host, sock in zip(hosts, captures, strict=True):
                arrived[host.mac] += [item for item in received_frames(sock) if item[12:14] == EXPERIMENTAL]
            return all(len(arrived[host.mac]) >= BURSTS * BURST * (len(hosts) - 1) for host in hosts)

        wait_for(complete, "all frames between the sites", 5.0)
        for (source, target), frames in wanted.items():
            address = _octets(source)
            assert [item for item in arrived[target] if item[6:12] == address] == frames, f"{source} {target}"
    drops = made.server.tunnel()["dataplane"]["drops"]
    assert {**drops, "transmit": {**drops.get("transmit", {}), "no_peer": 0}} == {"transmit": {"no_peer": 0}}


def _pairs(hosts: list[Host]) -> list[tuple[str, str]]:
    return [(source.mac, target.mac) for source, target in itertools.permutations(hosts, 2)]


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _numbered(source: str, target: str, number: int) -> bytes:
    """A frame that tells its flow and its number; some are small, most are full."""
    head = _octets(target) + _octets(source) + EXPERIMENTAL + number.to_bytes(4, "big")
    return head.ljust(90 if number % 7 == 3 else 1400, bytes([number % 251]))


@contextmanager
def _wire(host: Host) -> Iterator[socket.socket]:
    """A packet socket to send from."""
    with host.namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind((HOST_PORT, 0))
        yield sock


def _killed_client_ages_out(made: Star) -> None:
    victim = made.clients[2]
    victim.stop(signal.SIGKILL)
    with pinging(made.hub.clients[0].host, made.hub.clients[1].host.ipv4) as pings:
        wait_for(lambda: made.names() == ["client-1", "client-2"], "the dead peer to be given up", 8.0)
        pings.stop()
        assert pings.lost() == 0
    record = _record(made, "client-3")
    assert record["disconnects"] == {"ping_timeout": 1}
    assert record["fdb_entries"] == 0
    # What the dead client left behind is no obstacle.
    victim.start().wait_connected()
    made.hub.clients[2].host.ping(made.hub.clients[0].host.ipv4, count=2)


def test_the_same_certificate_from_another_place_replaces() -> None:
    """Client 2 falls silent; its certificate appears at site 3 before the server gives it up."""
    with star("replaced", 2, PATIENT) as made:
        silent = made.clients[1].started
        silent.send_signal(signal.SIGSTOP)
        try:
            moved = made.add_client(2, site_number=3)
            moved.wait_connected()
            wait_for(lambda: made.names() == ["client-1", "client-2"], "two peers")
            (peer,) = [item for item in made.server.connected_peers() if item["name"] == "client-2"]
            assert peer["sessions"] == 1 and peer["connections"] == 2
            assert peer["endpoint"].startswith(f"{made.hub.clients[2].wan_ipv4}:")
            assert peer["disconnects"] == {"replaced": 1}
            made.hub.clients[2].host.ping(made.hub.clients[0].host.ipv4, count=2)
            stop_all(moved)
        finally:
            silent.send_signal(signal.SIGCONT)
        wait_for(lambda: made.names() == ["client-1", "client-2"], "the first place to connect again", 10.0)


def test_isolated_clients_reach_the_server_only() -> None:
    with star("isolated", 2, forward_between_peers=False) as made:
        hub, first, second = (site.host for site in made.hub.sites[:3])
        wait_reach(first, hub.ipv4)
        wait_reach(second, hub.ipv4)
        first.ping(hub.ipv4, count=2)
        second.ping(hub.ipv4, count=2)
        assert not first.reaches(second.ipv4)
        assert not second.reaches(first.ipv4)
        assert first.neighbour(second.ipv4) == ""


def test_client_above_the_limit_is_refused_until_there_is_room() -> None:
    with star("limit", 2, peers_max=2) as made:
        third = made.add_client(3)
        wait_for(
            lambda: made.server.metric("bridged_handshakes_total", outcome="peer_limit") >= 1,
            "the refusal to be counted",
        )
        assert made.names() == ["client-1", "client-2"] and third.connected_peers() == []
        made.hub.clients[0].host.ping(made.hub.server.host.ipv4, count=2)
        made.clients[0].stop()
        third.wait_connected(seconds=8.0)
        assert made.names() == ["client-2", "client-3"]
        wait_reach(made.hub.clients[2].host, made.hub.server.host.ipv4)


def _record(made: Star, name: str) -> dict[str, Any]:
    (record,) = [peer for peer in made.server.tunnel()["peers"] if peer["name"] == name]
    return dict(record)
