"""A hub and its clients, all to all: how much our hub carries in sum, and how much OpenVPN's.

The same light clients (light_clients.py) speak with either hub: the hub's program is the only thing that
changes. The hub has a processor of its own, the clients the other one. Before anything is counted, one frame
for every ordered pair of clients has to arrive whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.clients_program import ClientsProgram, add_addresses, write_identities
from tests.bench.light_clients import __file__ as CLIENTS_FILE
from tests.bench.measures import Reading, datagrams_arrived
from tests.bench.processor import Stopwatch
from tests.bench.tunnels import ETHERNET_MTU, bridged_keys, set_wan_offload
from tests.lab import bridged_daemon
from tests.lab.core import Lab
from tests.lab.namespace import Namespace
from tests.lab.openvpn import OpenVpn, Profile
from tests.lab.topology import Hub
from tests.lab.waiting import LabError

CLIENTS_MOST = 500
CONNECT_SECONDS = 120.0
PROBE_SECONDS = 0.5
RATE_FIRST = 15_000.0
RATE_STEP = 1.3
RATE_LAST = 2_500_000.0
PATIENCE_STEPS = 2
"""One step that was disturbed does not end the search."""
SEALED_MOST = 600_000
"""Packets that the clients keep in memory at a time."""
OVERHEAD_OCTETS = 24 + 28
"""DATA_V2 with its tag, UDP and IPv4: what a frame needs on the WAN beside itself."""


@dataclass(frozen=True, slots=True)
class Load:
    """Packets a second that the clients offered and that arrived; the hub's share of a processor meanwhile.

    `ready` adds the time for which the hub wanted one and another program had it.
    """

    offered: float
    arrived: float
    busy: float
    ready: float


class Fleet(ClientsProgram):
    """The program of all clients, connected to the hub."""

    def __init__(self, space: Namespace, identities: Path, port: int, frame_octets: int) -> None:
        super().__init__(space, CLIENTS_FILE, identities, port, "--frame", str(frame_octets))
        self._space = space
        self.connected = int(self.answer(CONNECT_SECONDS)["connected"])

    def verify(self) -> int:
        """Frames that arrived, one for each ordered pair."""
        self.say("verify")
        return int(self.answer(CONNECT_SECONDS)["arrived"])

    def load(self, rate: float, seconds: float, pid: int) -> Load:
        """Offer `rate` packets a second for `seconds`; `pid` is the hub's program."""
        self.say(f"load {rate} {seconds}")
        self.answer(60 + rate * seconds / 20_000)  # they seal first
        before, watch = datagrams_arrived(self._space), Stopwatch([pid])
        self.say("go")
        done = self.answer(30 + 4 * seconds)
        elapsed = done["seconds"]
        arrived, (used,), (waited,) = datagrams_arrived(self._space) - before, watch.used(), watch.waited()
        return Load(done["sent"] / elapsed, arrived / elapsed, used / elapsed, (used + waited) / elapsed)


class HubBench:
    """One hub site, and one site with all clients; `measure` runs one program as hub."""

    def __init__(self, lab: Lab, clients: int, wan_mtu: int, wan_offload: str) -> None:
        if not 2 <= clients <= CLIENTS_MOST:
            raise LabError(f"a hub needs 2 to {CLIENTS_MOST} peers here, not {clients}")
        self.hub = Hub(lab, 1, wan="direct", wan_mtu=wan_mtu)
        self.profile = Profile(wrap="none", ciphers=("AES-256-GCM",), ping_seconds=60, restart_seconds=600)
        self.frame_octets = min(ETHERNET_MTU + 14, wan_mtu - OVERHEAD_OCTETS)
        self.clients = clients
        self.server_identity = self.profile.authority.issue("server", "server")
        self.identities = lab.directory / "clients"
        self.space = self.hub.clients[0].namespace
        write_identities(self.identities, self.profile, clients, "client")
        add_addresses(self.hub.server.namespace, self.space, clients)
        set_wan_offload(self.hub.sites, wan_offload)
        if (os.cpu_count() or 1) > 1:
            self.hub.server.namespace.cpus, self.space.cpus = "0", "1"

    def measure(self, program: str, dataplane: str, seconds: float) -> Reading:
        """Mbit/s of frames that the hub handed on, at the offered load where that was most."""
        with self._running(program, dataplane) as pid:
            fleet = Fleet(self.space, self.identities, self.profile.port, self.frame_octets)
            try:
                return self._measure(fleet, pid, seconds)
            finally:
                fleet.close()

    def _measure(self, fleet: Fleet, pid: int, seconds: float) -> Reading:
        pairs = self.clients * (self.clients - 1)
        arrived = fleet.verify()
        if arrived < 0.99 * pairs:
            raise LabError(f"only {arrived} of {pairs} frames between clients arrived")
        rate, best_rate, best, most, worse = RATE_FIRST, RATE_FIRST, 0.0, 0.0, 0
        while rate <= RATE_LAST and worse < PATIENCE_STEPS:
            step = fleet.load(rate, min(PROBE_SECONDS, SEALED_MOST / rate), pid)
            most = max(most, step.offered)
            worse += 1
            if step.arrived > best:
                best_rate, best, worse = rate, step.arrived, 0
            elif rate <= 2 * best and step.arrived >= 0.5 * best:
                worse = 0
            rate *= RATE_STEP
        load = fleet.load(best_rate, min(seconds, SEALED_MOST / best_rate), pid)
        megabits = load.arrived * self.frame_octets * 8 / 1e6
        return Reading(
            megabits,
            {
                "mbit_per_busy_processor": megabits / load.busy if load.busy else 0.0,
                "packets": load.arrived,
                "offered": load.offered,
                "offered_most": max(most, load.offered),
                "hub_busy_ratio": load.busy,
                "hub_ready_ratio": load.ready,
                "verified_pairs": arrived,
            },
        )

    @contextmanager
    def _running(self, program: str, dataplane: str) -> Iterator[int]:
        """The hub's process id."""
        site = self.hub.server
        if program == "openvpn":
            # Its hub must switch between clients by itself, and its buffers hold a burst as ours do.
            extra = ("client-to-client", "sndbuf 4194304", "rcvbuf 4194304")
            server = OpenVpn(site, "server", self.profile, self.server_identity, extra=extra).start()
            try:
                yield server.started.pid
            finally:
                server.stop()
                site.namespace.ip("link", "del", "tap0")
        else:
            keys = bridged_keys(dataplane, self.hub.wan_mtu)
            daemon = bridged_daemon.server(site, self.profile, self.server_identity, tunnel=keys).start()
            try:
                yield daemon.started.pid
            finally:
                daemon.stop()


def measure_hub(
    dataplane: str, peers: int, wan_mtu: int, wan_offload: str, pairs: int, seconds: float
) -> list[tuple[Reading, Reading]]:
    """(our hub, OpenVPN's hub), `pairs` times in turn."""
    taken: list[tuple[Reading, Reading]] = []
    with Lab("hubbench") as lab:
        bench = HubBench(lab, peers, wan_mtu, wan_offload)
        for _ in range(pairs):
            ours = bench.measure("bridged", dataplane, seconds)
            taken.append((ours, bench.measure("openvpn", dataplane, seconds)))
    return taken
