"""A LAN port that has the host's addresses joins the bridge: the host stays reachable, and gets all back.

`bridged run --confirm` takes everything back unless the operator confirms.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import LAN_PORT, WAN_PORT, Bridged, Lab, Profile, Site, TwoSites, bridged_daemon, wait_for
from tests.lab.bounds import at_most
from tests.lab.host_links import assert_same_host, photograph
from tests.system.daemon_lab import links_of, pinging, stop_all

pytestmark = [pytest.mark.root, pytest.mark.measures]

HOST_IPV4, HOST_IPV6 = "10.99.0.200", "fd99::c8"
FEW_PINGS = 20
"""Of one every 10 ms."""


@dataclass(slots=True)
class Gateway:
    """Site b, whose LAN port has the host's addresses and its default route; its daemon is not started."""

    sites: TwoSites
    client: Bridged

    @property
    def site(self) -> Site:
        return self.sites.b


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Lab("handover") as lab:
        sites = TwoSites(lab, bridges=False)
        sites.a.make_bridge(LAN_PORT)
        space = sites.b.namespace
        space.sysctl(f"net.ipv6.conf.{LAN_PORT}.disable_ipv6", 0)
        space.ip("addr", "add", f"{HOST_IPV4}/24", "dev", LAN_PORT)
        space.ip("addr", "add", f"{HOST_IPV6}/64", "dev", LAN_PORT, "nodad")
        space.ip("route", "add", "default", "via", sites.b.host.ipv4)
        space.ip("-6", "route", "add", "default", "via", sites.b.host.ipv6)
        space.ip("route", "add", "192.0.2.0/24", "via", sites.b.host.ipv4, "metric", "50")
        profile = Profile()
        issue = profile.authority.issue
        server = bridged_daemon.server(sites.a, profile, issue("server", "server")).start()
        client = bridged_daemon.client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4)
        yield Gateway(sites, client)
        stop_all(client, server)


def test_host_keeps_answering_while_its_port_joins_and_leaves_the_bridge(gateway: Gateway) -> None:
    before = _photograph(gateway.site)
    with pinging(gateway.sites.b.host, HOST_IPV4) as pings:
        pings.wait_for_answers(20)
        gateway.client.start().wait_connected()
        gateway.sites.a.host.ping(HOST_IPV4, count=3, interval_seconds=0.05)
        gateway.sites.a.host.ping(HOST_IPV6, count=3, interval_seconds=0.05)
        addresses = gateway.site.namespace.ip("-o", "addr", "show", "dev", "br0")
        assert HOST_IPV4 in addresses and HOST_IPV6 in addresses
        assert HOST_IPV4 not in gateway.site.namespace.ip("-o", "addr", "show", "dev", LAN_PORT)
        routes = gateway.site.namespace.ip("route", "show", "dev", "br0")
        assert f"default via {gateway.sites.b.host.ipv4}" in routes and "192.0.2.0/24" in routes
        joined = pings.count()
        assert joined >= 20
        assert gateway.client.stop() == 0
        pings.wait_for_answers(20)
    at_most(pings.lost(), FEW_PINGS, "the hand-over", "pings")
    assert_same_host(_photograph(gateway.site), before)


def test_unconfirmed_start_is_taken_back(gateway: Gateway) -> None:
    before = _photograph(gateway.site)
    with pinging(gateway.sites.b.host, HOST_IPV4) as pings:
        pings.wait_for_answers(10)
        began = time.monotonic()
        gateway.client.start("--confirm", "5").wait_connected()
        assert "br0" in links_of(gateway.site)
        assert gateway.client.started.wait() == 1
        took = time.monotonic() - began
        assert took >= 5.0
        at_most(took, 10.0, "the end of the daemon")
        pings.wait_for_answers(10)
    at_most(pings.lost(), FEW_PINGS, "the hand-over", "pings")
    assert "confirmation_needed" in gateway.client.log and "not_confirmed" in gateway.client.log
    assert_same_host(_photograph(gateway.site), before)


def test_confirmed_start_stays(gateway: Gateway) -> None:
    began = time.monotonic()
    client = gateway.client.start("--confirm", "8").wait_connected()
    at_most(time.monotonic() - began, 3.0, "the start")
    client.command("confirm", "--config", str(client.file))
    time.sleep(8.5)
    assert client.started.running and client.connected_peers()
    assert "br0" in links_of(gateway.site)
    assert client.stop() == 0


def test_port_that_carries_the_tunnel_is_refused_and_nothing_changes(gateway: Gateway) -> None:
    before = _photograph(gateway.site)
    gateway.client.configuration["bridges"]["br0"]["ports"] = [LAN_PORT, WAN_PORT]
    gateway.client.write()
    gateway.client.start(wait=False)
    assert gateway.client.started.wait(10.0) == 2
    assert f"{WAN_PORT} cannot be a bridge port: it carries the tunnel itself" in gateway.client.log
    assert_same_host(_photograph(gateway.site), before)


@pytest.mark.parametrize("adopted", [False, True])
def test_bridge_keeps_its_address_when_ports_come_and_go(gateway: Gateway, adopted: bool) -> None:
    site, host = gateway.site, gateway.sites.b.host
    site.namespace.ip("addr", "flush", "dev", LAN_PORT)
    if adopted:
        site.namespace.ip("link", "add", "br0", "type", "bridge")
    gateway.client.start().wait_connected()
    address = _bridge_mac(gateway.client)
    site.namespace.ip("link", "del", LAN_PORT)
    wait_for(lambda: _bridge_mac(gateway.client) == address, "the address to be seen")
    for lowest in ("00:00:5e:00:00:01", "fe:00:5e:00:00:01"):
        gateway.sites.lab.veth((host.namespace, "eth0"), (site.namespace, LAN_PORT))
        site.namespace.ip("link", "set", LAN_PORT, "address", lowest)
        wait_for(lambda: gateway.client.status()["bridges"][0]["ports"][LAN_PORT], "the port to join", 3.0)
        assert address in site.namespace.ip("link", "show", "br0")
        assert _bridge_mac(gateway.client) == address
        site.namespace.ip("link", "del", LAN_PORT)
    stop_all(gateway.client)
    assert ("br0" in links_of(site)) == adopted


def test_made_bridge_has_the_same_address_after_a_restart(gateway: Gateway) -> None:
    gateway.client.configuration["bridges"]["br0"]["ports"] = []
    gateway.client.write()
    seen = set()
    for _ in range(2):
        gateway.client.start()
        seen.add(_bridge_mac(gateway.client))
        assert gateway.client.stop() == 0
    assert len(seen) == 1


def _bridge_mac(daemon: Bridged) -> str:
    return str(daemon.status()["bridges"][0]["mac"])


def _photograph(site: Site) -> dict[str, Any]:
    return site.namespace.call(photograph)
