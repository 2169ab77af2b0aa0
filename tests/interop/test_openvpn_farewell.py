"""Ends of a connection: exit notices in both forms and directions, restart, and silence."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.interop.interop_ends import Ends, joined, openvpn, running, wait_for_event
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bounds import at_most
from tests.lab.bridged_daemon import client

pytestmark = [pytest.mark.root, pytest.mark.measures]
AT_ONCE_SECONDS = 1.0


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("farewell") as lab:
        yield TwoSites(lab)


def is_gone(ends: Ends, reason: str) -> bool:
    (peer,) = ends.ours.tunnel()["peers"]
    return not peer["connected"] and peer["disconnects"] == {reason: 1} and peer["fdb_entries"] == 0


def stations(ends: Ends) -> int:
    """Learned behind the peer."""
    (peer,) = ends.ours.tunnel()["peers"]
    return int(peer["fdb_entries"])


def expect_gone_at_once(ends: Ends) -> None:
    ends.ping_both_ways()
    assert stations(ends) >= 1
    begun = time.monotonic()
    ends.theirs.started.send_signal(signal.SIGTERM)
    wait_for(lambda: is_gone(ends, "exit_notify"), "the peer to be gone")
    at_most(time.monotonic() - begun, AT_ONCE_SECONDS, "the end of the peer")
    wait_for_event(ends.ours, "peer_disconnected", "exit_notify")


@pytest.mark.parametrize("derivation", ["auto", "prf"])
def test_an_openvpn_client_that_says_exit_is_gone_at_once(sites: TwoSites, derivation: str) -> None:
    with joined(sites, Profile(), "server", tunnel={"key_derivation": derivation}) as ends:
        expect_gone_at_once(ends)
        assert "SENT CONTROL [server]: 'EXIT'" in ends.theirs.log


def test_a_farewell_on_the_data_channel_is_not_believed_where_the_control_channel_was_agreed_for_it(
    sites: TwoSites,
) -> None:
    """A station of its LAN can send it as a frame. This client announces `cc-exit` and then ignores it."""
    extra = ('pull-filter ignore "protocol-flags"',)
    profile = Profile(ping_seconds=1, restart_seconds=2)
    with joined(sites, profile, "server", tunnel={"key_derivation": "prf"}, extra=extra) as ends:
        ends.ping_both_ways()
        ends.theirs.started.send_signal(signal.SIGTERM)
        wait_for(lambda: "sending exit notification to peer" in ends.theirs.log, "the farewell", 3)
        assert "'EXIT'" not in ends.theirs.log
        wait_for(lambda: is_gone(ends, "ping_timeout"), "the peer to be dropped", 8)


@pytest.mark.parametrize("derivation", ["auto", "prf"])
def test_an_openvpn_server_that_says_restart_is_gone_at_once(sites: TwoSites, derivation: str) -> None:
    with joined(sites, Profile(), "client", tunnel={"key_derivation": derivation}) as ends:
        expect_gone_at_once(ends)
        assert "SENT CONTROL [client]: 'RESTART'" in ends.theirs.log


@pytest.mark.parametrize(
    ("derivation", "heard"),
    [
        # Words of 2.6.14, and of 2.6.3.
        ("auto", ("CC-EEN exit message received", "Exit message received by peer")),
        ("prf", ("OCC exit message received", "SIGUSR1[soft,remote-exit]")),
    ],
    ids=["control channel", "data channel"],
)
def test_our_client_s_farewell_ends_it_at_an_openvpn_server(
    sites: TwoSites, derivation: str, heard: tuple[str, ...]
) -> None:
    """Without the exporter we announce nothing newer: `cc-exit` is not agreed, the data channel says it."""
    with joined(sites, Profile(), "client", tunnel={"key_derivation": derivation}) as ends:
        ends.ping_both_ways()
        assert ends.ours.stop() == 0
        ends.theirs.started.wait_for_output(heard, 2)


def test_our_server_s_farewell_makes_an_openvpn_client_restart(sites: TwoSites) -> None:
    with joined(sites, Profile(), "server") as ends:
        ends.ping_both_ways()
        ends.ours.stop()
        ends.theirs.started.wait_for_output("SIGUSR1[soft,server-pushed-connection-reset]", 3)
        ends.ours.start()
        ends.theirs.wait_up(2, 15)
        ends.ours.wait_connected()
        ends.ping_both_ways()


def test_a_killed_openvpn_client_is_dropped_after_its_restart_time(sites: TwoSites) -> None:
    profile = Profile(ping_seconds=1, restart_seconds=2)
    with joined(sites, profile, "server") as ends:
        ends.ping_both_ways()
        begun = time.monotonic()
        ends.theirs.stop(signal.SIGKILL)
        wait_for(lambda: is_gone(ends, "ping_timeout"), "the peer to be dropped", 8)
        # Our side waits twice as long as a client, as OpenVPN's `keepalive` does.
        took = time.monotonic() - begun
        assert took > 2 * profile.restart_seconds - 1.5
        at_most(took, 2 * profile.restart_seconds + 1.5, "the end of the peer")


def test_our_client_comes_back_to_an_openvpn_server_that_was_killed(sites: TwoSites) -> None:
    profile = Profile(ping_seconds=1, restart_seconds=3)
    issue = profile.authority.issue
    daemon = client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4)
    with running(daemon):
        with openvpn(sites.a, "server", profile, issue("server", "server")) as killed:
            daemon.wait_connected()
            wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "traffic", 5)
            killed.stop(signal.SIGKILL)
        wait_for_event(daemon, "peer_disconnected", "ping_timeout", seconds=6)
        with openvpn(sites.a, "server", profile, issue("server", "server")):
            daemon.wait_connected(seconds=10)
            wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "traffic", 5)
            assert daemon.connected_peers()[0]["connections"] == 2
