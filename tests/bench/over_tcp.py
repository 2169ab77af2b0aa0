"""One TCP stream through tunnels over TCP of which one end is plain OpenVPN.

Our end may cost nothing: what two OpenVPN ends carry in the same direction is the least.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.bench.measures import Joined, Reading, prepare, tcp_stream
from tests.bench.tunnels import (
    bridged_keys,
    keep_apart,
    openvpn_options,
    profile,
    set_wan_offload,
    tunnel,
)
from tests.lab import bridged_daemon
from tests.lab.bridged_daemon import Bridged
from tests.lab.core import Lab
from tests.lab.host_settings import CONGESTION_WANTED, usable_congestion
from tests.lab.openvpn import OpenVpn
from tests.lab.topology import TwoSites
from tests.lab.waiting import wait_for

OUR_ENDS = ("server", "client")
WAYS = ("to_client", "to_server")


@contextmanager
def half_openvpn_over_tcp(
    sites: TwoSites, ours_as: str, dataplane: str, congestion: str = CONGESTION_WANTED
) -> Iterator[Joined]:
    """Our end in this role, OpenVPN's in the other. The server is at site a, and the sender beside it."""
    names = profile("tcp")
    issue = names.authority.issue
    keys = bridged_keys(dataplane, sites.wan_mtu)
    extra, far = openvpn_options(sites.wan_mtu), sites.a.wan_ipv4
    ours: Bridged
    order: tuple[Bridged | OpenVpn, Bridged | OpenVpn]
    if ours_as == "server":
        ours = bridged_daemon.server(sites.a, names, issue("server", "server"), tunnel=keys)
        theirs = OpenVpn(sites.b, "client", names, issue("client", "client"), remote=far, extra=extra)
        order = (ours, theirs)
    else:
        ours = bridged_daemon.client(sites.b, names, issue("client", "client"), far, tunnel=keys)
        theirs = OpenVpn(sites.a, "server", names, issue("server", "server"), extra=extra)
        order = (theirs, ours)
    try:
        for end in order:
            end.start()
        theirs.wait_connected()
        ours.wait_connected()
        for host in (sites.a.host, sites.b.host):
            host.forget_neighbours()
        wait_for(lambda: sites.a.host.reaches(sites.b.host.ipv4), "frames to cross", 20)
        pids = (ours.started.pid, theirs.started.pid)
        yield Joined(sites.a.host, sites.b.host, pids, usable_congestion(congestion))
    finally:
        for end in reversed(order):
            if end.process is not None:
                end.stop()
        theirs.site.namespace.ip("link", "del", "tap0")


def measure_half_over_tcp(
    dataplane: str, wan_mtu: int, wan_offload: str, pairs: int, seconds: float, congestion: str
) -> dict[str, list[tuple[Reading, Reading]]]:
    """For "our role, direction", `pairs` times (with our end, between two OpenVPN ends): Mbit/s."""
    taken: dict[str, list[tuple[Reading, Reading]]] = {
        f"our_{end}_{way}": [] for end in OUR_ENDS for way in WAYS
    }
    with Lab("halftcp") as lab:
        sites = TwoSites(lab, wan_mtu=wan_mtu)
        set_wan_offload(sites.sites, wan_offload)
        prepare(sites.a.host)
        keep_apart(sites.sites)
        for _ in range(pairs):
            for end in OUR_ENDS:
                with half_openvpn_over_tcp(sites, end, dataplane, congestion) as joined:
                    ours = _both_ways(joined, seconds)
                with tunnel(sites, "openvpn", dataplane, congestion=congestion, transport="tcp") as joined:
                    theirs = _both_ways(joined, seconds)
                for way, *pair in zip(WAYS, ours, theirs, strict=True):
                    taken[f"our_{end}_{way}"].append((pair[0], pair[1]))
    return taken


def _both_ways(joined: Joined, seconds: float) -> list[Reading]:
    back = replace(joined, sender=joined.receiver, receiver=joined.sender)
    return [tcp_stream(way, seconds) for way in (joined, back)]
