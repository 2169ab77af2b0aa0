"""A restart under a service manager with a descriptor store: the LAN does not notice it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.lab import Bridged, Lab, Process, Profile, Site, TwoSites, bridged_daemon
from tests.lab.bounds import at_most
from tests.lab.service_manager import ServiceManager
from tests.system.daemon_lab import STEADY_PING, pinging

pytestmark = [pytest.mark.root, pytest.mark.measures]

LOSS_SECONDS = 0.3
PING_SECONDS = 0.005
WATCHDOG = {"WATCHDOG_USEC": "1000000"}


@dataclass(slots=True)
class Managed:
    """Two daemons, each under its manager; nothing of their bridges existed before."""

    sites: TwoSites
    server: ServiceManager
    client: ServiceManager


@pytest.fixture(params=["native", "portable"])
def managed(request: pytest.FixtureRequest) -> Iterator[Managed]:
    with Lab("restart") as lab, ExitStack() as stack:
        sites = TwoSites(lab, bridges=False)
        profile = Profile()
        issue = profile.authority.issue
        tunnel = {"dataplane": request.param, "workers": 2 if request.param == "native" else 1}
        server = bridged_daemon.server(sites.a, profile, issue("server", "server"), tunnel=tunnel)
        client = bridged_daemon.client(
            sites.b, profile, issue("client", "client"), sites.a.wan_ipv4, tunnel=tunnel
        )
        managers = [
            stack.enter_context(ServiceManager(daemon, environment=WATCHDOG)) for daemon in (server, client)
        ]
        for manager in managers:
            manager.start()
        server.wait_connected()
        client.wait_connected()
        yield Managed(sites, *managers)
        for manager in managers:
            # One at each start; any other needs the answers of all threads.
            assert manager.beats >= 4
            assert manager.stop() == 0


def watch_links(site: Site) -> Process:
    return site.namespace.popen("ip", "-o", "monitor", "link", log="monitor")


def index_of(site: Site, link: str) -> str:
    return site.namespace.run("cat", f"/sys/class/net/{link}/ifindex").strip()


def learned(site: Site) -> set[str]:
    """What the kernel's bridge has learned, without ages."""
    return set(site.namespace.run("bridge", "fdb", "show", "br", "br0", "dynamic").splitlines())


def test_a_restart_loses_less_than_300_ms_and_the_bridge_port_stays_as_it_is(managed: Managed) -> None:
    restart_unnoticed(managed, managed.server)
    restart_unnoticed(managed, managed.client)


def restart_unnoticed(managed: Managed, manager: ServiceManager) -> None:
    daemon: Bridged = manager.daemon
    site, hosts = daemon.site, (managed.sites.a.host, managed.sites.b.host)
    echo = hosts[1].namespace.popen(*STEADY_PING, "echo", log="echo")
    echo.wait_for_output("ready")
    index, mac = index_of(site, "tap0"), site.namespace.run("cat", "/sys/class/net/tap0/address")
    with pinging(hosts[0], hosts[1].ipv4, PING_SECONDS, STEADY_PING) as pings:
        pings.wait_for_answers(40)
        stations = learned(site)
        assert any("tap0" in station for station in stations)
        monitor = watch_links(site)
        seconds = manager.restart()
        pings.wait_for_answers(40)
        monitor.stop()
        pings.stop()
    echo.stop()
    lost = pings.lost() * PING_SECONDS
    print(f"\n{daemon.stem}: lost {lost:.3f} s, gap {pings.longest_gap():.3f} s, ready after {seconds:.3f} s")
    assert (index_of(site, "tap0"), site.namespace.run("cat", "/sys/class/net/tap0/address")) == (index, mac)
    assert stations <= learned(site)
    changes = [line for line in monitor.output().splitlines() if "tap0" in line or "br0" in line]
    assert not [line for line in changes if "DOWN" in line or "Deleted" in line or "NO-CARRIER" in line]
    assert daemon.log.count("tap_inherited") == 1
    at_most(lost, LOSS_SECONDS, "pings lost across the restart")
