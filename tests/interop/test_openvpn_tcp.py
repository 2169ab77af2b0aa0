"""Tunnels over TCP with every release of OpenVPN, in both roles, and beside UDP on one switch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import pytest

from tests.interop.interop_ends import Pinger, Role, joined, log_events, openvpn, running
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bounds import at_least
from tests.lab.bridged_daemon import client, server
from tests.lab.openvpn import RELEASES, WrapMode

pytestmark = [pytest.mark.root, pytest.mark.measures]
RENEGOTIATION_SECONDS = 2
TRAFFIC_SECONDS = 2.5
BAD = ("Authenticate/Decrypt packet error", "bad packet ID", "Bad encapsulated", "WARNING: 'proto'")
"""What OpenVPN says of packets that it does not take."""


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    with Lab("tcp") as lab:
        yield TwoSites(lab, wan="switch")


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize("release", RELEASES)
def test_frames_of_all_kinds_cross_through_renegotiations_and_a_restart_of_the_other_end(
    sites: TwoSites, release: str, ours_as: Role
) -> None:
    keys = {"renegotiate": {"seconds": RENEGOTIATION_SECONDS}}
    with joined(sites, Profile(transport="tcp"), ours_as, tunnel=keys, release=release) as ends:
        assert ends.peer()["transport"] == "tcp"
        ends.ping_both_ways()
        assert ends.changed_frames() == {}
        ours, theirs = ends.our_site.host, ends.their_site.host
        pingers = (Pinger(ours, theirs.ipv4, TRAFFIC_SECONDS), Pinger(theirs, ours.ipv6, TRAFFIC_SECONDS))
        assert [pinger.finish().lost for pinger in pingers] == [[], []]
        at_least(
            ends.ours.tunnel()["renegotiations"].get("time", {}).get("established", 0), 1, "renegotiations"
        )
        assert ends.unwanted_drops() == {}
        assert log_events(ends.ours, "options_differ") == []
        before, starts = ends.peer()["connections"], ends.theirs.starts
        ends.theirs.restart_soft()
        wait_for(lambda: ends.ours.log.count("peer_disconnected") >= 1, "our end to lose the session")
        wait_for(
            lambda: [peer["connections"] for peer in ends.ours.connected_peers()] == [before + 1],
            "another session",
            20,
        )
        # Our end has the session before theirs has read what is pushed.
        ends.theirs.wait_up(starts + 1)
        ends.ping_both_ways()
        assert [text for text in BAD if text in ends.theirs.log] == []


@pytest.mark.parametrize("wrap", get_args(WrapMode))
def test_each_wrap_works_over_tcp_and_ipv6(sites: TwoSites, wrap: WrapMode) -> None:
    profile = Profile(transport="tcp", wrap=wrap)
    with joined(sites, profile, "server", remote=sites.a.wan_ipv6) as ends:
        ends.ping_both_ways()
        assert [text for text in BAD if text in ends.theirs.log] == []


def test_our_client_works_over_tcp_and_ipv6(sites: TwoSites) -> None:
    with joined(sites, Profile(transport="tcp"), "client", remote=sites.a.wan_ipv6) as ends:
        assert ends.peer()["endpoint"].endswith("/tcp")
        ends.ping_both_ways()


def test_the_portable_build_serves_udp_and_tcp_on_one_switch(sites: TwoSites) -> None:
    profile = Profile()
    issue = profile.authority.issue
    tunnel = {"dataplane": "portable", "transport": "both", "renegotiate": {"seconds": RENEGOTIATION_SECONDS}}
    here, there = sites.a.host, sites.b.host
    with running(server(sites.a, profile, issue("server", "server"), tunnel=tunnel)) as ours:
        transports: tuple[Literal["udp", "tcp"], ...] = ("tcp", "udp")
        for transport in transports:
            theirs = replace(profile, transport=transport)
            with openvpn(
                sites.b, "client", theirs, issue(transport, "client"), remote=sites.a.wan_ipv4
            ) as other:
                other.wait_connected()
                ours.wait_connected()
                (peer,) = ours.connected_peers()
                assert peer["transport"] == transport
                pingers = (
                    Pinger(here, there.ipv4, TRAFFIC_SECONDS),
                    Pinger(there, here.ipv6, TRAFFIC_SECONDS),
                )
                assert [pinger.finish().lost for pinger in pingers] == [[], []]
                assert [text for text in BAD if text in other.log] == []
            wait_for(lambda: not ours.connected_peers(), f"the client over {transport} to be gone")
        at_least(ours.tunnel()["renegotiations"].get("time", {}).get("established", 0), 2, "renegotiations")


def test_our_portable_client_works_over_tcp(sites: TwoSites) -> None:
    profile = Profile(transport="tcp")
    issue = profile.authority.issue
    with openvpn(sites.a, "server", profile, issue("server", "server")) as theirs:
        keys = {"dataplane": "portable"}
        ours = client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4, tunnel=keys)
        with running(ours):
            ours.wait_connected()
            sites.b.host.ping(sites.a.host.ipv4, count=5, interval_seconds=0.02)
            assert ours.tunnel()["dataplane"]["dataplane"] == "portable"
        assert [text for text in BAD if text in theirs.log] == []
