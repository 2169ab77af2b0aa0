"""VLAN-aware bridges: the TAPs carry what the LAN ports carry."""

from __future__ import annotations

from tests.lab.bridged_daemon import bridged_pair
from tests.lab.core import Lab
from tests.lab.topology import HOST_PORT, LAN_PORT, TwoSites
from tests.lab.vlan_bridge import prove_vlans_follow


def test_a_tap_on_a_vlan_aware_bridge_has_the_lan_ports_vlans_follows_them_and_gives_them_back() -> None:
    with Lab("vmvlans") as lab, lab.namespace("host").entered():
        prove_vlans_follow()


def test_tagged_and_untagged_frames_of_vlan_aware_bridges_cross_the_tunnel() -> None:
    with Lab("vmtagged") as lab:
        sites = TwoSites(lab, bridges=False)
        for site in sites.sites:
            site.namespace.ip("link", "add", "br0", "type", "bridge", "vlan_filtering", "1")
            site.namespace.ip("link", "set", "br0", "up")
            site.namespace.ip("link", "set", LAN_PORT, "master", "br0")
            site.namespace.run("bridge", "vlan", "add", "dev", LAN_PORT, "vid", "2-4094")
        bridged_pair(sites.a, sites.b)
        near, far = sites.a.host, sites.b.host
        near.ping(far.ipv4, count=2)
        for number, host in enumerate((near, far), start=1):
            space = host.namespace
            space.ip("link", "add", "link", HOST_PORT, "name", "vlan20", "type", "vlan", "id", "20")
            space.ip("addr", "add", f"10.20.0.{number}/24", "dev", "vlan20")
            space.ip("link", "set", "vlan20", "up")
        near.ping("10.20.0.2", wait_seconds=10.0)
