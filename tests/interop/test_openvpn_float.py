"""Either end changes its address, early and late: less than a second of traffic is lost.

What OpenVPN allows: its server follows a client that speaks from elsewhere (peer id, authenticated data).
Its client follows nobody, also with `float`: a session is bound to the address that it was made with
("TLS keys are out of sync", "unexpected IP addr" in its log), and it comes back by its ping-restart. Our
client follows its server by authentic data alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.interop.interop_ends import Ends, Pinger, Role, joined, wait_for_event
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bounds import at_most
from tests.lab.relay import Relay

pytestmark = [pytest.mark.root, pytest.mark.measures]
OUTAGE_SECONDS = 1.0
RELAY_PORT = 1195


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    # A lab of its own for each test: addresses change.
    with Lab("float") as lab:
        yield TwoSites(lab, wan="switch")


def expect_short_outage(pinger: Pinger) -> None:
    pinger.finish()
    at_most(pinger.longest_outage, OUTAGE_SECONDS, "an outage")


def expect_renegotiation(ends: Ends) -> None:
    """One more, begun by us, through the addresses of now."""

    def count() -> int:
        found = ends.ours.tunnel()["renegotiations"]
        return int(found.get("time", {}).get("established", 0))

    before = count()
    wait_for(lambda: count() > before, "a renegotiation at the new address", 12)
    ends.ping_both_ways()
    assert ends.peer()["connections"] == 1


@pytest.mark.parametrize("ours_as", ["server", "client"])
def test_a_client_that_changes_its_address_is_followed(sites: TwoSites, ours_as: Role) -> None:
    with joined(sites, Profile(), ours_as, tunnel={"renegotiate": {"seconds": 3}}) as ends:
        ends.ping_both_ways()
        pinger = Pinger(sites.b.host, sites.a.host.ipv4, 3)
        time.sleep(0.5)
        sites.b.change_wan_ipv4("203.0.113.77")
        expect_short_outage(pinger)
        if ours_as == "server":
            wait_for_event(ends.ours, "peer_floated", "203.0.113.77")
            assert ends.peer()["endpoint"].startswith("203.0.113.77:")
            assert ends.peer()["endpoint_changes"] == 1
        else:
            assert "Float requested for peer" in ends.theirs.log
        expect_renegotiation(ends)


@pytest.mark.parametrize("ours_as", ["server", "client"])
def test_a_client_behind_a_translator_that_forgets_it_is_followed(sites: TwoSites, ours_as: Role) -> None:
    """The client does not know: only its source port, as the server sees it, is another."""
    relay = Relay(sites.wan_namespace, ("203.0.113.1", RELAY_PORT), (sites.a.wan_ipv4, 1194))
    profile = Profile(port=RELAY_PORT) if ours_as == "server" else Profile()
    keys = {"renegotiate": {"seconds": 3}}
    if ours_as == "server":
        keys["listen"] = "0.0.0.0:1194"
    remote = "203.0.113.1" if ours_as == "server" else f"203.0.113.1:{RELAY_PORT}"
    with joined(sites, profile, ours_as, tunnel=keys, remote=remote) as ends:
        ends.ping_both_ways()
        pinger = Pinger(sites.b.host, sites.a.host.ipv4, 3)
        time.sleep(0.5)
        relay.rebind()
        expect_short_outage(pinger)
        expect_renegotiation(ends)


def test_our_client_follows_an_openvpn_server_that_changes_its_address(sites: TwoSites) -> None:
    with joined(sites, Profile(), "client", tunnel={"renegotiate": {"seconds": 3}}) as ends:
        ends.ping_both_ways()
        # The server's LAN speaks: OpenVPN never announces itself when its address changes.
        pinger = Pinger(sites.a.host, sites.b.host.ipv4, 3)
        time.sleep(0.5)
        sites.a.change_wan_ipv4("203.0.113.78")
        expect_short_outage(pinger)
        wait_for_event(ends.ours, "peer_floated", "203.0.113.78")
        assert ends.peer()["endpoint"] == "203.0.113.78:1194"
        expect_renegotiation(ends)


def test_our_client_finds_a_silent_openvpn_server_again_by_its_pings(sites: TwoSites) -> None:
    """Only the client's LAN speaks, to the old address; the server's ping tells the new one."""
    with joined(sites, Profile(ping_seconds=1), "client") as ends:
        ends.ping_both_ways()
        pinger = Pinger(sites.b.host, sites.a.host.ipv4, 3)
        time.sleep(0.5)
        sites.a.change_wan_ipv4("203.0.113.78")
        pinger.finish()
        at_most(pinger.longest_outage, 2.5, "an outage")
        assert ends.peer()["connections"] == 1


def test_an_openvpn_client_comes_back_by_ping_restart_when_our_server_s_address_changes(
    sites: TwoSites,
) -> None:
    """With the new address among its remotes; see above for why `float` is not enough."""
    profile = Profile(ping_seconds=1, restart_seconds=3)
    extra = ("float", "remote 203.0.113.78 1194", "server-poll-timeout 2", "hand-window 5")
    with joined(sites, profile, "server", extra=extra) as ends:
        ends.ping_both_ways()
        sites.a.change_wan_ipv4("203.0.113.78")
        ends.ours.wait_until(
            lambda status: status["tunnels"][0]["peers"][0]["connections"] == 2, "the client to come back", 15
        )
        ends.theirs.wait_up(2, 5)
        wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "traffic", 5)
        assert ends.peer()["disconnects"] in ({"replaced": 1}, {"ping_timeout": 1})
