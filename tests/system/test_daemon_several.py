"""One daemon, one YAML file: several bridges and several tunnels, in both roles, that stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab import HOST_PORT, Bridged, Host, Lab, Profile, Site, TwoSites
from tests.lab.bridged_daemon import client, server
from tests.lab.frames import discovery_kit, missing_at
from tests.system.daemon_lab import stop_all

pytestmark = pytest.mark.root

SECOND_PORT = "lan1"
SECOND_UDP_PORT = 1195


@dataclass
class Apart:
    """Two sites with an office LAN (br0) and a machine LAN (br1) each; one daemon at each site."""

    offices: tuple[Host, Host]
    machines: tuple[Host, Host]
    daemons: tuple[Bridged, Bridged]


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with Lab("several") as lab:
        sites = TwoSites(lab, bridges=False)
        machines = (_second_lan(lab, sites.a, 21), _second_lan(lab, sites.b, 22))
        first, second = _daemons(sites)
        first.start()
        second.start()
        for daemon in (first, second):
            daemon.wait_connected()
            daemon.wait_connected(tunnel="machines")
        # Each station is heard of, whichever test comes first.
        sites.a.host.ping(sites.b.host.ipv4)
        machines[0].ping(machines[1].ipv4)
        yield Apart((sites.a.host, sites.b.host), machines, (first, second))
        stop_all(second, first)
        for site in (sites.a, sites.b):
            assert site.namespace.ip("link", "show", "type", "bridge") == ""


def _second_lan(lab: Lab, site: Site, number: int) -> Host:
    """A host in the same IP network as the others, so that only the bridges keep the LANs apart."""
    space = lab.namespace(f"{site.namespace.role}-machine")
    lab.veth((space, HOST_PORT), (site.namespace, SECOND_PORT))
    host = Host(space, f"02:00:5e:10:00:{number:02x}", f"10.99.0.{number}", f"fd99::{number:x}")
    space.ip("link", "set", HOST_PORT, "address", host.mac)
    space.ip("addr", "add", f"{host.ipv4}/24", "dev", HOST_PORT)
    space.ip("addr", "add", f"{host.ipv6}/64", "dev", HOST_PORT, "nodad")
    return host


def _daemons(sites: TwoSites) -> tuple[Bridged, Bridged]:
    """Site a is the server of the offices and a client of the machines; site b the other way round."""
    profile = Profile()
    issue = profile.authority.issue
    first = server(sites.a, profile, issue("server", "server"))
    second = client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4)
    far = {"bridge": "br1", "tap": {"name": "tap1"}}
    listen = f"0.0.0.0:{SECOND_UDP_PORT}"
    waiting = server(sites.b, profile, issue("server", "server"), name="waiting", tunnel=far, listen=listen)
    remote = f"{sites.b.wan_ipv4}:{SECOND_UDP_PORT}"
    calling = client(sites.a, profile, issue("client", "client"), remote, name="calling", tunnel=far)
    for daemon, other in ((first, calling), (second, waiting)):
        daemon.configuration["bridges"]["br1"] = {"ports": [SECOND_PORT]}
        daemon.configuration["tunnels"]["machines"] = other.configuration["tunnels"]["lab"]
        daemon.write()
    return first, second


def test_each_lan_reaches_its_other_half(apart: Apart) -> None:
    for here, there in (apart.offices, apart.machines):
        here.ping(there.ipv4)
        there.ping(here.ipv6)


def test_every_kind_of_frame_crosses_both_tunnels_at_once(apart: Apart) -> None:
    for here, there in (apart.offices, apart.machines):
        kit = discovery_kit(here, there, lldp=False)
        assert missing_at(here, there, kit) == {}


def test_nothing_crosses_from_one_lan_to_the_other(apart: Apart) -> None:
    for office in apart.offices:
        for machine in apart.machines:
            assert not office.reaches(machine.ipv4)
            assert office.neighbour(machine.ipv4) == ""


def test_status_and_metrics_tell_bridges_and_tunnels_apart(apart: Apart) -> None:
    for daemon, roles in zip(apart.daemons, (("server", "client"), ("client", "server")), strict=True):
        status = daemon.status()
        assert {bridge["name"]: set(bridge["ports"]) for bridge in status["bridges"]} == {
            "br0": {"lan0", "tap0"},
            "br1": {"lan1", "tap1"},
        }
        assert [(tunnel["name"], tunnel["role"]) for tunnel in status["tunnels"]] == [
            ("lab", roles[0]),
            ("machines", roles[1]),
        ]
        offices, machines = (set(daemon.stations(name)) for name in ("lab", "machines"))
        assert {host.mac for host in apart.offices} <= offices
        assert {host.mac for host in apart.machines} <= machines
        assert not offices & machines
        for tunnel in ("lab", "machines"):
            assert daemon.metric("bridged_tunnel_up", tunnel=tunnel) == 1
