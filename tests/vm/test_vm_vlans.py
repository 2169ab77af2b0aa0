"""VLAN-aware bridges: the TAPs carry what the LAN ports carry."""

from __future__ import annotations

from tests.lab.core import Lab
from tests.lab.vlan_bridge import prove_vlans_follow


def test_a_tap_on_a_vlan_aware_bridge_has_the_lan_ports_vlans_follows_them_and_gives_them_back() -> None:
    with Lab("vmvlans") as lab, lab.namespace("host").entered():
        prove_vlans_follow()
