"""Proof on a kernel with VLAN filtering that TAPs get the LAN ports' VLANs, wherever such a kernel runs.

Needs root, `ip` and `bridge`; works in the network namespace of the calling thread.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from bridged.link_planning.vlans import parse_vlans
from bridged.link_planning.wishes import BridgeTap, BridgeWish
from bridged.netlink import BridgeAttachment
from tests.lab.host_links import ip, shell, within


def prove_vlans_follow() -> None:
    """A TAP in a VLAN-aware bridge gets the LAN port's VLANs, follows changes, and gives back what it had.

    Raises:
        AssertionError: it does not.
        RuntimeError: this kernel has no VLAN filtering.
    """
    ip("link add vmbr0 type bridge")
    try:
        ip("link set vmbr0 type bridge vlan_filtering 1")
    except AssertionError as error:
        ip("link del vmbr0")
        raise RuntimeError("this kernel has no VLAN filtering of bridges") from error
    try:
        ip("link set vmbr0 up", "link add lan9 type veth peer name lan9x", "link set lan9x up")
        ip("link set lan9 master vmbr0 up", "tuntap add tap9 mode tap", "tuntap add tap8 mode tap")
        for command in ("vlan add dev lan9 vid 2-4094", "vlan del dev lan9 vid 100"):
            shell(f"bridge {command}")
        # tap8 was in the bridge before, with VLANs of its own.
        ip("link set tap8 master vmbr0 up")
        shell("bridge vlan add dev tap8 vid 77")
        before = _vlans("tap8")
        asyncio.run(_prove())
        assert _vlans("tap8") == before, "given back"
        assert "master" not in shell("ip -o link show dev tap9")
    finally:
        for name in ("tap9", "tap8", "lan9", "vmbr0"):
            shell(f"ip link del {name} || true")


async def _prove() -> None:
    taps = (BridgeTap("tap9"), BridgeTap("tap8"))
    wish = BridgeWish("vmbr0", ports=("lan9",), taps=taps)
    attachment = BridgeAttachment(wish)
    await attachment.start()
    try:
        await within(lambda: _vlans("tap9") == _vlans("lan9") == _vlans("tap8"), "the LAN port's VLANs")
        assert {1: {"PVID", "Egress Untagged"}, 20: set()}.items() <= _vlans("tap9").items()
        shell("bridge vlan add dev lan9 vid 100")
        shell("bridge vlan del dev lan9 vid 20")
        shell("bridge vlan add dev lan9 vid 5 pvid untagged")
        await within(lambda: _vlans("tap9") == _vlans("lan9"), "a later change")
        assert 100 in _vlans("tap9") and 20 not in _vlans("tap9") and "PVID" in _vlans("tap9")[5]
        vlans = parse_vlans(("7 untagged", "30-39"))
        await attachment.change(BridgeWish("vmbr0", ports=("lan9",), taps=taps, vlans=vlans))
        expected = {7: {"PVID", "Egress Untagged"}, **{number: set() for number in range(30, 40)}}
        await within(lambda: _vlans("tap9") == expected, "the configured VLANs")
    finally:
        await attachment.stop()


def _vlans(name: str) -> dict[int, set[str]]:
    """VLAN -> flags, as `bridge vlan` shows them."""
    found: dict[int, set[str]] = {}
    rows: list[dict[str, Any]] = json.loads(shell("bridge -j vlan show") or "[]")
    for row in rows:
        if row["ifname"] == name:
            for vlan in row["vlans"]:
                for number in range(vlan["vlan"], vlan.get("vlanEnd", vlan["vlan"]) + 1):
                    found[number] = set(vlan.get("flags", ()))
    return found
