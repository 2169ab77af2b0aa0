"""`mtu: auto` on a WAN that drops fragments, and what is too large, without a word (no ICMP)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab import Bridged, Lab, TwoSites, bridged_pair
from tests.lab.large_packets import ECHO, BlackHole, ask, df_ping, move
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root

SECONDS = 60.0
"""For one search: fewer than 30 probes, two a second."""


@dataclass(frozen=True, slots=True)
class Case:
    """`bears`: bytes of the largest outer packet; `builds`: of server and client."""

    bears: int
    builds: tuple[str, str] = ("native", "native")
    is_ipv6: bool = False

    def __str__(self) -> str:
        return f"{self.bears}-{'-'.join(self.builds)}-IPv{6 if self.is_ipv6 else 4}"

    @property
    def fits(self) -> int:
        """Bytes of the largest IP packet inside."""
        return self.bears - (48 if self.is_ipv6 else 28) - 28 - 14


@dataclass(slots=True)
class Joined:
    case: Case
    sites: TwoSites
    daemons: tuple[Bridged, Bridged]
    holes: tuple[BlackHole, BlackHole]

    def wait_measured(self, bears: int) -> None:
        for daemon in self.daemons:
            daemon.wait_until(
                lambda _, daemon=daemon: [peer["path_mtu"] for peer in daemon.connected_peers()] == [bears],
                f"a path MTU of {bears}",
                SECONDS,
            )


CASES = (
    Case(1492),
    Case(1420, ("portable", "native")),
    Case(1280, ("native", "portable")),
    Case(1500, is_ipv6=True),
    Case(1420, ("portable", "portable"), is_ipv6=True),
)


@pytest.fixture(params=CASES, ids=str)
def far_apart(request: pytest.FixtureRequest) -> Iterator[Joined]:
    case: Case = request.param
    with Lab("mtuauto") as lab:
        sites = TwoSites(lab)
        holes = BlackHole(sites.a, case.bears), BlackHole(sites.b, case.bears)
        remote = f"[{sites.a.wan_ipv6}]:1194" if case.is_ipv6 else ""
        keys = [{"mtu": "auto", "dataplane": build} for build in case.builds]
        keys[0]["listen"] = "[::]:1194"
        daemons = bridged_pair(sites.a, sites.b, server_tunnel=keys[0], client_tunnel=keys[1], remote=remote)
        sites.b.host.namespace.popen(sys.executable, "-c", ECHO, log="echo")
        yield Joined(case, sites, daemons, holes)
        stop_all(*reversed(daemons))


def test_a_lan_of_1500_works_as_soon_as_the_path_is_measured(far_apart: Joined) -> None:
    case, sites, daemons = far_apart.case, far_apart.sites, far_apart.daemons
    first, second = sites.a.host, sites.b.host
    far_apart.wait_measured(case.bears)
    first.ping(second.ipv4, count=2)

    # First what may be cut: a host that has heard of the size cuts by itself.
    asked = ask(first, second.ipv4, 50)
    assert asked == {"small": True, "may be cut": True, "refused": True, "mtu": case.fits, "in pieces": True}
    assert daemons[0].metric("bridged_mtu_events_total", event="ipv4_cut") >= 1
    assert f"mtu = {case.fits}" in df_ping(first, second.ipv4, 1472).replace("mtu=", "mtu = ")
    assert case.fits - 80 <= move(first, second).mss <= case.fits - 40
    for daemon in daemons:
        (peer,) = daemon.connected_peers()
        assert daemon.metric("bridged_peer_path_mtu_bytes", peer=peer["name"]) == case.bears
        assert f"path MTU {case.bears}" in daemon.command("status", "--config", str(daemon.file))
        assert "emsgsize" not in str(daemon.drops())
        assert "occ_" not in str(daemon.drops())


@pytest.mark.parametrize(
    "far_apart", [Case(1500), Case(1420, ("portable", "portable"))], indirect=True, ids=str
)
def test_after_a_float_both_ends_measure_again(far_apart: Joined) -> None:
    far_apart.wait_measured(far_apart.case.bears)
    for hole in far_apart.holes:
        hole.narrow(1340)
    far_apart.sites.b.change_wan_ipv4("203.0.113.77")
    far_apart.wait_measured(1340)
    (peer,) = far_apart.daemons[0].connected_peers()
    assert peer["endpoint"].startswith("203.0.113.77")
    fits = Case(1340).fits
    first, second = far_apart.sites.a.host, far_apart.sites.b.host
    assert f"mtu = {fits}" in df_ping(first, second.ipv4, 1472).replace("mtu=", "mtu = ")


def test_jumbo_frames_and_an_adopted_bridge_keep_their_size() -> None:
    with Lab("mtujumbo") as lab:
        sites = TwoSites(lab, wan_mtu=9000, lan_mtu=8900)
        holes = BlackHole(sites.a, 9000), BlackHole(sites.b, 9000)
        for site in (sites.a, sites.b):
            site.namespace.ip("link", "set", "br0", "mtu", "8900")
        keys = {"mtu": "auto", "tap": {"name": "tap0", "mtu": 8800}}
        daemons = bridged_pair(sites.a, sites.b, server_tunnel=keys, client_tunnel=keys)
        # Everything that the adapter takes crosses: 8818 bytes of frame, and what is around them.
        Joined(Case(9000), sites, daemons, holes).wait_measured(8818 + 28 + 28)
        sites.a.host.ping(sites.b.host.ipv4, "-M", "do", "-s", str(8800 - 28), count=3)
        assert "mtu 8900" in sites.a.namespace.ip("link", "show", "br0")
        stop_all(*reversed(daemons))
