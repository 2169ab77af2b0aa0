"""`answer_too_big` on a WAN that drops IP fragments: what hangs without it, and works with it."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator

import pytest

from tests.lab import WAN_PORT, Bridged, Lab, TwoSites, bridged_pair
from tests.lab.bounds import at_most
from tests.lab.bridged_daemon import TUNNEL
from tests.lab.large_packets import ECHO, ask, df_ping, expect_mtu, move
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root

AROUND = 28 + 28 + 14
"""Outer IPv4 and UDP, header, id and tag of the epoch format, Ethernet."""
PAIRS = 5
OCTETS = {"native": 100_000_000, "portable": 20_000_000}
"""About half a second each."""
SLOWER_MOST = 1.25
"""So short streams differ by a tenth on a machine that others use."""


@pytest.fixture(
    params=[(1500, "native"), (1492, "portable"), (1420, "native"), (1280, "native"), (1280, "portable")],
    ids=str,
)
def joined(request: pytest.FixtureRequest) -> Iterator[tuple[int, TwoSites, list[Bridged]]]:
    wan_mtu, build = request.param
    with Lab("toobig") as lab:
        sites = TwoSites(lab, wan_mtu=wan_mtu, lan_mtu=1500)
        for site in (sites.a, sites.b):
            site.namespace.run("nft", "add table netdev wan")
            chain = f'{{ type filter hook ingress device "{WAN_PORT}" priority 0; }}'
            site.namespace.run("nft", f"add chain netdev wan in {chain}")
            site.namespace.run("nft", "add rule netdev wan in ip frag-off & 0x3fff != 0 drop")
        keys = {"wan_mtu": wan_mtu, "dataplane": build}
        daemons = list(bridged_pair(sites.a, sites.b, server_tunnel=keys, client_tunnel=keys))
        sites.b.host.namespace.popen(sys.executable, "-c", ECHO, log="echo")
        sites.a.host.ping(sites.b.host.ipv4, count=2)
        yield wan_mtu, sites, daemons
        stop_all(*reversed(daemons))


def answer_too_big(daemons: list[Bridged]) -> None:
    for daemon in daemons:
        daemon.configuration["tunnels"][TUNNEL]["answer_too_big"] = True
        daemon.reload()
    for daemon in daemons:
        daemon.wait_connected()


def test_large_packets_hang_and_with_answers_they_work(joined: tuple[int, TwoSites, list[Bridged]]) -> None:
    wan_mtu, sites, daemons = joined
    first, second = sites.a.host, sites.b.host
    fits = wan_mtu - AROUND

    lost = df_ping(first, second.ipv4, 1472)
    assert "100% packet loss" in lost
    assert "mtu" not in lost
    assert ask(first, second.ipv4, 5) == {
        "small": True,
        "may be cut": False,
        "refused": False,
        "mtu": 1500,
        "in pieces": False,
    }

    answer_too_big(daemons)
    first.ping(second.ipv4, count=2)

    # First what may be cut: a host that has heard of the size cuts by itself.
    asked = ask(first, second.ipv4, 50)
    assert asked == {"small": True, "may be cut": True, "refused": True, "mtu": fits, "in pieces": True}
    assert f"mtu = {fits}" in df_ping(first, second.ipv4, 1472).replace("mtu=", "mtu = ")
    first.ping(second.ipv4, "-M", "do", "-s", str(fits - 28), count=3, interval_seconds=0.02)
    if fits >= 1280:
        assert f"mtu = {fits}" in df_ping(first, second.ipv6, 1452).replace("mtu=", "mtu = ")
    # Segments of full size: less would be slower, more would be lost.
    assert fits - 80 <= move(first, second).mss <= fits - 40
    assert daemons[0].metric("bridged_mtu_events_total", event="too_big_answered") >= 1
    assert daemons[0].drops()["transmit too_big"] >= 1
    assert daemons[0].metric("bridged_mtu_events_total", event="ipv4_cut") >= 1


@pytest.mark.measures
def test_tcp_is_as_fast_as_between_hosts_that_somebody_set_right(
    joined: tuple[int, TwoSites, list[Bridged]],
) -> None:
    wan_mtu, sites, daemons = joined
    first, second = sites.a.host, sites.b.host
    answer_too_big(daemons)
    first.ping(second.ipv4, count=2)
    octets = OCTETS[daemons[0].configuration["tunnels"][TUNNEL]["dataplane"]]
    rates: dict[str, list[float]] = {"set right": [], "as they are": []}
    for _ in range(PAIRS):
        for hosts, mtu in (("set right", wan_mtu - AROUND), ("as they are", 1500)):
            for host in (first, second):
                expect_mtu(host, mtu)
            rates[hosts].append(move(first, second, octets).megabits)
    right, as_they_are = (statistics.median(seen) for seen in rates.values())
    print(f"WAN {wan_mtu}: {as_they_are:.0f} Mbit/s, {right:.0f} where the hosts know the size")
    at_most(right / as_they_are, SLOWER_MOST, "TCP between hosts that know nothing", "times as slow")
