"""One end ours, the other one plain OpenVPN: OpenVPN has to be the limit, and we hardly busy.

OpenVPN has a processor of its own, so that nothing but itself can be what it waits for; ours shares the
other one with both hosts' programs. What is given are shares of one processor, while TCP runs at full speed.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.bench.measures import Joined, Reading, tcp_streams
from tests.bench.processor import Stopwatch
from tests.bench.tunnels import (
    bridged_keys,
    openvpn_options,
    profile,
    set_wan_offload,
)
from tests.lab import bridged_daemon
from tests.lab.core import Lab
from tests.lab.host_settings import CONGESTION_WANTED, usable_congestion
from tests.lab.openvpn import OpenVpn
from tests.lab.topology import TwoSites
from tests.lab.waiting import wait_for

OURS_MOST = 35.0
THEIRS_LEAST = 95.0
"""Per cent of one processor: 100 less what the start of the stream and the clock's ticks take."""

DIRECTIONS = ("openvpn_end_receives", "openvpn_end_sends")


def passes(pairs: list[tuple[float, float]]) -> bool:
    """Of (ours, theirs) in per cent: by the medians."""
    ours = statistics.median(pair[0] for pair in pairs)
    theirs = statistics.median(pair[1] for pair in pairs)
    return ours < OURS_MOST and theirs >= THEIRS_LEAST


@contextmanager
def half_openvpn(sites: TwoSites, dataplane: str, congestion: str) -> Iterator[Joined]:
    """Our server at site a, OpenVPN's client at site b; `programs` are (ours, theirs)."""
    names = profile()
    issue = names.authority.issue
    keys = bridged_keys(dataplane, sites.wan_mtu)
    server = bridged_daemon.server(sites.a, names, issue("server", "server"), tunnel=keys).start()
    client = OpenVpn(
        sites.b,
        "client",
        names,
        issue("client", "client"),
        remote=sites.a.wan_ipv4,
        extra=openvpn_options(sites.wan_mtu),
    )
    try:
        client.start().wait_connected()
        server.wait_connected()
        for host in (sites.a.host, sites.b.host):
            host.forget_neighbours()
        wait_for(lambda: sites.a.host.reaches(sites.b.host.ipv4), "frames to cross", 20)
        pids = (server.started.pid, client.started.pid)
        yield Joined(sites.a.host, sites.b.host, pids, usable_congestion(congestion))
    finally:
        client.stop()
        server.stop()
        sites.b.namespace.ip("link", "del", "tap0")


def measure_mixed(
    dataplane: str,
    wan_mtu: int,
    wan_offload: str,
    pairs: int,
    seconds: float,
    congestion: str = CONGESTION_WANTED,
) -> dict[str, list[tuple[Reading, Reading]]]:
    """For each of DIRECTIONS, `pairs` times (our share, OpenVPN's share), per cent of one processor."""
    taken: dict[str, list[tuple[Reading, Reading]]] = {name: [] for name in DIRECTIONS}
    with Lab("mixed") as lab:
        sites = TwoSites(lab, wan_mtu=wan_mtu)
        set_wan_offload(sites.sites, wan_offload)
        if (os.cpu_count() or 1) > 1:
            for space in (sites.a.namespace, sites.a.host.namespace, sites.b.host.namespace):
                space.cpus = "0"
            sites.b.namespace.cpus = "1"
        for _ in range(pairs):
            with half_openvpn(sites, dataplane, congestion) as joined:
                back = replace(joined, sender=joined.receiver, receiver=joined.sender)
                for name, way in zip(DIRECTIONS, (joined, back), strict=True):
                    taken[name].append(_shares(way, seconds))
    return taken


def _shares(joined: Joined, seconds: float) -> tuple[Reading, Reading]:
    """(ours, theirs) over the time of some streams; their start and end outside the window count as idle.

    `ready` in the details adds the time for which the program wanted a processor and another one had it: on a
    machine that does nothing else it is the same.
    """
    watch = Stopwatch(joined.programs)
    stream = tcp_streams(joined, seconds)
    elapsed = seconds + 1.0  # iperf3 leaves its first second out
    readings = []
    for used, waited in zip(watch.used(), watch.waited(), strict=True):
        details = {"ready": (used + waited) / elapsed * 100, "mbit": stream.value}
        readings.append(Reading(used / elapsed * 100, details))
    return readings[0], readings[1]
