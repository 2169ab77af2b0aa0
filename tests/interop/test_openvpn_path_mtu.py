"""`mtu: auto` with real OpenVPN of three generations, both roles, on a path that drops without a word."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

import pytest

from tests.interop.interop_ends import Role, joined, log_events, openvpn, running
from tests.lab import Lab, Profile, TwoSites
from tests.lab.bridged_daemon import server
from tests.lab.large_packets import BlackHole, df_ping
from tests.lab.openvpn import RELEASES

pytestmark = pytest.mark.root
BEARS = 1420
SECONDS = 60.0


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("pathmtu") as lab:
        sites = TwoSites(lab)
        for site in (sites.a, sites.b):
            BlackHole(site, BEARS)
        yield sites


@pytest.mark.parametrize(("release", "ours_as"), list(product(RELEASES, get_args(Role))))
def test_openvpn_answers_probes_and_its_packets_are_fitted_to_the_path(
    sites: TwoSites, release: str, ours_as: Role
) -> None:
    with joined(sites, Profile(), ours_as, tunnel={"mtu": "auto"}, release=release) as ends:
        ends.ping_both_ways(count=1)
        ends.ours.wait_until(lambda _: ends.peer()["path_mtu"] == BEARS, "a path MTU", SECONDS)
        ours, theirs = ends.our_site.host, ends.their_site.host
        # The packets of the epoch format are four bytes longer.
        around = 28 + (28 if release == "2.7" else 24) + 14
        assert f"mtu = {BEARS - around}" in df_ping(ours, theirs.ipv4, 1472).replace("mtu=", "mtu = ")
        assert ends.unwanted_drops().keys() <= {"transmit too_big"}
        assert log_events(ends.ours, "options_differ") == []
        assert "Bad" not in ends.theirs.log
        assert "ERROR" not in ends.theirs.log
        ends.ping_both_ways(count=2)


@pytest.mark.parametrize("ours_as", get_args(Role))
def test_a_peer_that_uses_compression_framing_answers_as_well(sites: TwoSites, ours_as: Role) -> None:
    tunnel = {"mtu": "auto", "compression_framing": "comp-lzo"}
    with joined(sites, Profile(), ours_as, tunnel=tunnel, extra=("comp-lzo no",)) as ends:
        ends.ours.wait_until(lambda _: ends.peer()["path_mtu"] is not None, "a path MTU", SECONDS)
        assert BEARS - 8 <= ends.peer()["path_mtu"] <= BEARS


def test_the_portable_build_measures_as_well(sites: TwoSites) -> None:
    profile = Profile()
    issue = profile.authority.issue
    tunnel = {"mtu": "auto", "dataplane": "portable"}
    with (
        running(server(sites.a, profile, issue("server", "server"), tunnel=tunnel)) as ours,
        openvpn(sites.b, "client", profile, issue("client", "client"), remote=sites.a.wan_ipv4),
    ):
        ours.wait_connected()
        ours.wait_until(
            lambda _: [peer["path_mtu"] for peer in ours.connected_peers()] == [BEARS], "a path MTU", SECONDS
        )
