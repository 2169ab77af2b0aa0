"""A change of either end's WAN address costs less than a second of traffic, also right after connecting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tests.lab import WAN_PORT, Bridged, Lab, Site, TwoSites, bridged_pair
from tests.lab.bounds import at_most
from tests.system.daemon_lab import Pings, pinging, stop_all

pytestmark = [pytest.mark.root, pytest.mark.measures]

MOST_SECONDS = 1.0
HOME_NETWORKS = {"a": "198.51.100", "b": "203.0.113"}
OTHER_NETWORKS = {"a": ("192.0.2", "to1"), "b": ("198.18.7", "to2")}


@dataclass(slots=True)
class Joined:
    """Two sites on a routed WAN, connected a moment ago."""

    sites: TwoSites
    server: Bridged
    client: Bridged


@pytest.fixture(scope="module")
def joined() -> Iterator[Joined]:
    with Lab("moves") as lab:
        sites = TwoSites(lab, wan="router")
        for network, port in OTHER_NETWORKS.values():
            sites.wan_namespace.ip("addr", "add", f"{network}.1/24", "dev", port)
        # Long keepalives: they must not be what finds the new address.
        slow = {"keepalive": {"ping_seconds": 20, "restart_seconds": 120}}
        server, client = bridged_pair(sites.a, sites.b, server_tunnel=slow, client_tunnel=slow)
        yield Joined(sites, server, client)
        stop_all(client, server)


def _same_network(site: Site) -> None:
    """The next host number, cyclically, in the network where the site is."""
    network, _, number = site.wan_ipv4.rpartition(".")
    site.change_wan_ipv4(f"{network}.{60 + (int(number) + 1) % 100}")


def _other_network(site: Site) -> None:
    """The old address and its routes go first, as when a line drops and another one takes over."""
    end = site.namespace.role.removeprefix("site-")
    networks = (HOME_NETWORKS[end], OTHER_NETWORKS[end][0])
    network = networks[site.wan_ipv4.startswith(networks[0])]
    site.namespace.ip("addr", "del", f"{site.wan_ipv4}/24", "dev", WAN_PORT)
    site.namespace.ip("addr", "add", f"{network}.50/24", "dev", WAN_PORT)
    site.namespace.ip("route", "replace", "default", "via", f"{network}.1")
    site.wan_ipv4, site.wan_gateway = f"{network}.50", f"{network}.1"


@pytest.mark.parametrize("end", ["server", "client"])
@pytest.mark.parametrize("move", [_same_network, _other_network])
@pytest.mark.parametrize("talker", ["server side", "client side"])
def test_change_of_an_address_costs_less_than_a_second(
    joined: Joined, end: str, move: Callable[[Site], None], talker: str
) -> None:
    a, b = joined.sites.a, joined.sites.b
    first, second = (a.host, b.host) if talker == "server side" else (b.host, a.host)
    site = a if end == "server" else b
    other = joined.client if end == "server" else joined.server
    (before,) = other.connected_peers()
    with pinging(first, second.ipv4, 0.005) as pings:
        pings.wait_for_answers(40)
        _moved(pings, lambda: move(site))
        pings.wait_for_answers(100)
    (peer,) = other.connected_peers()
    assert peer["endpoint"].startswith(f"{site.wan_ipv4}:")
    # The session lives on: no new handshake, only a new endpoint.
    assert peer["connections"] == 1
    assert peer["endpoint_changes"] > before["endpoint_changes"]


def test_five_changes_in_a_row_cost_less_than_a_second_each(joined: Joined) -> None:
    a, b = joined.sites.a, joined.sites.b
    with pinging(a.host, b.host.ipv4, 0.005) as pings:
        pings.wait_for_answers(40)
        for number in range(5):
            site = (a, b)[number % 2]
            # In the first minute after connecting, and again and again.
            _moved(pings, partial(_same_network, site))
            pings.wait_for_answers(40)


def test_both_ends_change_one_after_the_other_within_a_second(joined: Joined) -> None:
    a, b = joined.sites.a, joined.sites.b
    with pinging(a.host, b.host.ipv4, 0.005) as pings:
        pings.wait_for_answers(40)

        def move() -> None:
            _other_network(b)
            time.sleep(0.3)
            _other_network(a)

        _moved(pings, move, MOST_SECONDS + 0.3)
        pings.wait_for_answers(100)


@pytest.mark.parametrize("change", ["IPv4 to IPv6", "IPv6 to IPv4"])
def test_change_of_the_address_family_costs_less_than_a_second(change: str) -> None:
    """A new session, since the path has another family; the next reachable remote is taken at once."""
    with Lab("families") as lab:
        sites = TwoSites(lab, wan="router")
        a, b = sites.a, sites.b
        remotes = [f"{a.wan_ipv4}:1194", f"[{a.wan_ipv6}]:1194"]
        server, client = bridged_pair(
            a,
            b,
            server_tunnel={"listen": "[::]:1194"},
            client_tunnel={"remotes": remotes if change == "IPv4 to IPv6" else remotes[::-1]},
        )
        lost = b.wan_ipv4 + "/24" if change == "IPv4 to IPv6" else b.wan_ipv6 + "/64"
        family = ("-4",) if change == "IPv4 to IPv6" else ("-6",)
        with pinging(a.host, b.host.ipv4, 0.005) as pings:
            pings.wait_for_answers(40)
            _moved(pings, lambda: _lose_family(b, lost, family))
            pings.wait_for_answers(100)
        (peer,) = server.connected_peers()
        assert peer["endpoint"].startswith("[" if change == "IPv4 to IPv6" else b.wan_ipv4)
        stop_all(client, server)


def _lose_family(site: Site, address: str, family: tuple[str, ...]) -> None:
    site.namespace.ip("addr", "del", address, "dev", WAN_PORT)
    site.namespace.ip(*family, "route", "flush", "default")


def _moved(pings: Pings, move: Callable[[], None], most: float = MOST_SECONDS) -> None:
    """Make the change; no silence longer than `most` from then on until traffic is back for a while."""
    began = time.time()
    move()
    pings.wait_for_answers(60)
    at_most(pings.longest_gap(began), most, "no answer")
