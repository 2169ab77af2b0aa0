"""The machine's kernel has what this host's may lack."""

from __future__ import annotations

import platform

from tests.lab.core import Lab


def test_a_bridge_can_filter_vlans_and_carry_802_1q_devices() -> None:
    assert "cloud-amd64" in platform.release()
    with Lab("vmkernel") as lab:
        space = lab.namespace("host")
        space.ip("link", "add", "br0", "type", "bridge", "vlan_filtering", "1")
        space.ip("link", "add", "link", "br0", "name", "br0.7", "type", "vlan", "id", "7")
        assert "vlan_filtering 1" in space.ip("-d", "link", "show", "br0")
        space.run("tc", "qdisc", "add", "dev", "br0", "root", "netem", "loss", "1%")
