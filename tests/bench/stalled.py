"""A hub whose one client stops to read: what that costs the others, how much waits for it, and its return.

Three clients of ours, each at a site of its own: one over TCP that is stopped (SIGSTOP: its window closes),
one over TCP and IPv6, one over UDP. A steady load goes from the hub's LAN to all three, the same with a
stalled client and without, in turn A B A B.
"""

from __future__ import annotations

import re
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.bench.measures import SOURCE, UDP_PORT, Joined, prepare, sink, tcp_stream
from tests.lab import bridged_daemon
from tests.lab.bridged_daemon import Bridged
from tests.lab.core import Lab
from tests.lab.host_settings import CONGESTION_WANTED, usable_congestion
from tests.lab.openvpn import Profile
from tests.lab.process_memory import own_octets
from tests.lab.processes import Process
from tests.lab.topology import Hub
from tests.lab.waiting import NotInTime, wait_for

STALLED, OTHERS = "stalled", ("tcp", "udp")
PAYLOAD_OCTETS = 1000
RATES = {"native": 4000.0, "portable": 800.0}
"""Datagrams a second for each client: well below what the build carries on a busy machine."""
LONG_STALL_SECONDS = 30.0
FILLING_LOADS_MAX = 20
PATIENCE_SECONDS = 90
"""Of the peers' keepalive: longer than a stall."""


@dataclass(slots=True)
class Stall:
    """What was seen. Rates are datagrams a second at the clients that read; octets are bytes."""

    without: dict[str, list[float]] = field(default_factory=dict)
    beside: dict[str, list[float]] = field(default_factory=dict)
    dropped: int = 0
    waiting_octets: int = 0
    """In the kernel, for the stalled client."""
    grown_octets: int = 0
    """Of the hub's program, from the first load without a stalled client to the end of the last stall."""
    ended_sessions: int = 0

    def kept(self, name: str) -> float:
        """Share of its rate that a client keeps beside a stalled one: the median of the pairs."""
        pairs = zip(self.beside[name], self.without[name], strict=True)
        return statistics.median(beside / without for beside, without in pairs)


class StallBench:
    """The hub and its clients, connected. `measure` stalls one of them."""

    def __init__(self, hub: Hub, server: Bridged, clients: dict[str, Bridged], rate: float) -> None:
        self._hub = hub
        self.server = server
        self.clients = clients
        self._hosts = dict(zip(clients, (site.host for site in hub.clients), strict=True))
        self._rate = rate

    def measure(self, rounds: int, seconds: float, stall_seconds: float, *, is_full: bool = False) -> Stall:
        """Load without and beside a stalled client, `rounds` times. The first stall lasts `stall_seconds`.

        `is_full`: also one TCP stream at full speed beside the steady load, Mbit/s.
        """
        found = Stall()
        self._load(0.5)
        for number in range(rounds):
            for name, rate in self._take(seconds, is_full).items():
                found.without.setdefault(name, []).append(rate)
            if number == 0:
                before = own_octets(self.server.started.pid)
            with self.stalled():
                self._fill(0.5 if number else max(0.5, stall_seconds))
                for name, rate in self._take(seconds, is_full).items():
                    found.beside.setdefault(name, []).append(rate)
                found.waiting_octets = max(found.waiting_octets, self._waiting())
                found.grown_octets = max(found.grown_octets, own_octets(self.server.started.pid) - before)
            self.returns()
        found.dropped = self._dropped()
        found.ended_sessions = self.server.log.count("peer_disconnected")
        return found

    @contextmanager
    def stalled(self) -> Iterator[None]:
        client = self.clients[STALLED].started
        client.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            client.send_signal(signal.SIGCONT)

    def _fill(self, seconds: float) -> None:
        """Fill the buffers for a stalled client: load of `seconds`, and more while nothing is dropped."""
        before = self._dropped()
        self._load(seconds)
        for _ in range(FILLING_LOADS_MAX):
            if self._dropped() > before:
                return
            self._load(0.5)

    def _dropped(self) -> int:
        return self.server.drops().get("transmit tcp_send_full", 0)

    def returns(self) -> None:
        """The client that was stalled takes frames again."""
        far, near = self._hosts[STALLED], self._hub.server.host
        wait_for(
            lambda: near.reaches(far.ipv4) and far.reaches(near.ipv6), "the stalled client to return", 10
        )

    def _take(self, seconds: float, is_full: bool) -> dict[str, float]:
        rates = self._load(seconds)
        if is_full:
            arguments = ("--payload", str(PAYLOAD_OCTETS), "--rate", str(self._rate), "--seconds")
            near, far = self._hub.server.host, self._hosts[STALLED]
            joined = Joined(near, self._hosts["tcp"], congestion=usable_congestion(CONGESTION_WANTED))
            with sink(far):
                source = near.namespace.popen(
                    *(sys.executable, SOURCE, far.ipv4, str(UDP_PORT), *arguments, str(seconds + 2)),
                    log="beside",
                )
                rates["tcp_at_full_speed"] = tcp_stream(joined, seconds).value
                source.wait(seconds + 30)
        return rates

    def _load(self, seconds: float) -> dict[str, float]:
        """Offer all clients the same; what arrives at those that read, datagrams a second."""
        near = self._hub.server.host.namespace
        arguments = ("--payload", str(PAYLOAD_OCTETS), "--rate", str(self._rate), "--seconds", str(seconds))
        with ExitStack() as stack:
            counts = {name: stack.enter_context(sink(host)) for name, host in self._hosts.items()}
            before = {name: counts[name]() for name in OTHERS}
            sources: list[Process] = [
                near.popen(sys.executable, SOURCE, host.ipv4, str(UDP_PORT), *arguments, log=f"to-{name}")
                for name, host in self._hosts.items()
            ]
            for source in sources:
                source.wait(seconds + 30)
            time.sleep(0.1)  # what the queues still hold belongs to this load
            sent = dict(zip(self._hosts, (int(source.output()) for source in sources), strict=True))
            if min(sent.values()) < 0.8 * self._rate * seconds:
                raise NotInTime(f"the sources were too slow: {sent}")
            # Shares of what was sent: a busy machine's source may send less than it should.
            return {name: (counts[name]() - before[name]) / sent[name] * self._rate for name in OTHERS}

    def _waiting(self) -> int:
        """Bytes that the kernel holds for the stalled client, as `ss` counts them (w: memory to send)."""
        peer = self._hub.clients[0].wan_ipv4
        lines = self._hub.server.namespace.run("ss", "-tmnHO").splitlines()
        held = [re.search(r"skmem:\([^)]*?,w(\d+)", line) for line in lines if peer in line]
        return sum(int(found[1]) for found in held if found is not None)


@contextmanager
def stall_bench(dataplane: str) -> Iterator[StallBench]:
    """The lab, and all of it connected."""
    profile = Profile(ping_seconds=2, restart_seconds=PATIENCE_SECONDS)
    issue = profile.authority.issue
    with Lab("stall") as lab:
        hub = Hub(lab, 1 + len(OTHERS))
        prepare(hub.server.host)
        keys = {"dataplane": dataplane}
        listen = f"[::]:{profile.port}"
        daemons = [
            bridged_daemon.server(
                hub.server, profile, issue("server", "server"), listen=listen,
                tunnel=keys | {"transport": "both"},
            )
        ]  # fmt: skip
        here = hub.server
        remotes = (
            f"{here.wan_ipv4}:{profile.port}/tcp",
            f"[{here.wan_ipv6}]:{profile.port}/tcp",
            f"{here.wan_ipv4}:{profile.port}",
        )
        clients = {
            name: bridged_daemon.client(site, profile, issue(name, "client"), remote, tunnel=keys)
            for name, site, remote in zip((STALLED, *OTHERS), hub.clients, remotes, strict=True)
        }
        daemons += clients.values()
        try:
            for daemon in daemons:
                daemon.start()
            daemons[0].wait_connected(len(clients))
            for site in hub.clients:
                host = site.host
                wait_for(lambda host=host: hub.server.host.reaches(host.ipv4), "frames to cross", 20)
            yield StallBench(hub, daemons[0], clients, RATES[dataplane])
        except BaseException:
            print(daemons[0].started.tail(40) if daemons[0].process else "")
            raise
        finally:
            for daemon in reversed(daemons):
                if daemon.process is not None:
                    daemon.stop()


def measure_stalled(dataplane: str, pairs: int, seconds: float, stall_seconds: float) -> Stall:
    """See the module."""
    with stall_bench(dataplane) as bench:
        return bench.measure(pairs, seconds, stall_seconds, is_full=True)
