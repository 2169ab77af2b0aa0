"""A client of ours after an outage, and one certificate on two machines; OpenVPN at the other end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.interop.interop_ends import joined, running, wait_for_event
from tests.lab import Lab, OpenVpn, Profile, TwoSites, wait_for
from tests.lab.bounds import at_most
from tests.lab.bridged_daemon import client, server
from tests.lab.openvpn import COMPLETED
from tests.lab.topology import WAN_PORT

pytestmark = [pytest.mark.root, pytest.mark.measures]
BACK_SECONDS = 5.0
# Our client gives up after 4 s of silence; OpenVPN's server keeps its session for 8 s.
QUICK = Profile(ping_seconds=1, restart_seconds=4)


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("outage") as lab:
        yield TwoSites(lab, wan="switch")


def test_after_an_outage_an_openvpn_server_that_kept_its_session_has_us_back_within_five_seconds(
    sites: TwoSites,
) -> None:
    with joined(sites, QUICK, "client") as ends:
        before = ends.ours.tunnel()["local_endpoint"]
        sites.a.namespace.ip("link", "set", WAN_PORT, "down")
        wait_for_event(ends.ours, "peer_disconnected", "ping_timeout", seconds=15)
        sites.a.namespace.ip("link", "set", WAN_PORT, "up")
        began = time.monotonic()
        ends.ours.wait_connected(seconds=20)
        at_most(time.monotonic() - began, BACK_SECONDS, "coming back")
        assert ends.ours.tunnel()["local_endpoint"] != before, "OpenVPN ignores what the old port asks for"
        ends.ping_both_ways()


def test_a_dead_address_before_an_openvpn_server_costs_three_seconds(sites: TwoSites) -> None:
    profile = QUICK
    issue = profile.authority.issue
    theirs = OpenVpn(sites.a, "server", profile, issue("server", "server"), tap="ovpn0")
    remotes = [f"[{sites.a.wan_ipv6}]:1194", f"{sites.a.wan_ipv4}:1194/udp4"]
    with running(
        client(sites.b, profile, issue("client", "client"), "unused", tunnel={"remotes": remotes})
    ) as ours:
        try:
            # It listens on IPv4 alone; what comes by IPv6 falls into nothing.
            sites.a.namespace.run("nft", "add table inet dead")
            rule = "add chain inet dead in { type filter hook input priority 0; }"
            sites.a.namespace.run("nft", rule)
            sites.a.namespace.run("nft", "add rule inet dead in meta nfproto ipv6 udp dport 1194 drop")
            theirs.start()
            ours.stop()
            began = time.monotonic()
            ours.start().wait_connected(seconds=20)
            # Its own start takes part of this time.
            at_most(time.monotonic() - began, 3.0 + BACK_SECONDS, "coming back")
            wait_for_event(ours, "peer_connected")
        finally:
            theirs.stop(signal.SIGKILL)
            sites.a.namespace.run("nft", "delete table inet dead")
            sites.a.namespace.ip("link", "del", "ovpn0")


def test_an_openvpn_client_whose_certificate_another_machine_uses_is_told_why_and_waits(
    sites: TwoSites,
) -> None:
    profile = Profile()
    issue = profile.authority.issue
    shared = issue("site-b", "client")
    machines = [
        # OpenVPN waits as it is told to, but no longer than this maximum; the lab's is 2 s.
        OpenVpn(
            *(sites.b, "client", profile, shared),
            remote=sites.a.wan_ipv4,
            tap=tap,
            extra=("connect-retry 1 300",),
        )
        for tap in ("ovpn1", "ovpn2")
    ]
    try:
        with running(server(sites.a, profile, issue("server", "server"))) as ours:
            for machine in machines:
                machine.start().wait_connected()
            wait_for_event(ours, "name_conflict", "peer=site-b", sites.b.wan_ipv4)
            assert ours.metric("bridged_name_conflicts_total") == 1
            assert "two machines use the certificate of site-b" in ours.tunnel()["last_error"]
            told = "does another machine use this profile?"
            wait_for(lambda: "Restart pause, 60 second(s)" in machines[0].log, "the loser to wait")
            assert (
                f"AUTH_FAILED,TEMP[backoff 60,advance no]:site-b connected from {sites.b.wan_ipv4}"
                in machines[0].log
            )
            assert told in machines[0].log
            assert machines[0].started.running and machines[0].log.count(COMPLETED) == 1
            assert told not in machines[1].log
            (peer,) = ours.connected_peers()
            assert peer["connections"] == 2
    finally:
        for machine in machines:
            machine.stop(signal.SIGKILL)
            sites.b.namespace.ip("link", "del", machine.tap)
