"""Proof on a kernel with VLAN filtering that TAPs get the LAN ports' VLANs, wherever such a kernel runs.

Needs root, `ip` and `bridge`; works in the network namespace of the calling thread.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from typing import Any

from bridged.link_planning.vlans import parse_vlans
from bridged.link_planning.wishes import BridgeTap, BridgeWish
from bridged.netlink import BridgeAttachment

WITHIN_SECONDS = 10.0


def prove_vlans_follow() -> None:
    """A TAP in a VLAN-aware bridge gets the LAN port's VLANs, follows changes, and gives back what it had.

    Raises:
        AssertionError: it does not.
        RuntimeError: this kernel has no VLAN filtering.
    """
    _ip("link add vmbr0 type bridge")
    if _run("ip link set vmbr0 type bridge vlan_filtering 1", check=False) != 0:
        _ip("link del vmbr0")
        raise RuntimeError("this kernel has no VLAN filtering of bridges")
    try:
        _ip("link set vmbr0 up", "link add lan9 type veth peer name lan9x", "link set lan9x up")
        _ip("link set lan9 master vmbr0 up", "tuntap add tap9 mode tap", "tuntap add tap8 mode tap")
        for command in ("vlan add dev lan9 vid 2-4094", "vlan del dev lan9 vid 100"):
            _run(f"bridge {command}")
        # tap8 was in the bridge before, with VLANs of its own.
        _ip("link set tap8 master vmbr0 up")
        _run("bridge vlan add dev tap8 vid 77")
        before = _vlans("tap8")
        asyncio.run(_prove())
        assert _vlans("tap8") == before, "given back"
        assert "master" not in _text("ip -o link show dev tap9")
    finally:
        for name in ("tap9", "tap8", "lan9", "vmbr0"):
            _run(f"ip link del {name}", check=False)


async def _prove() -> None:
    taps = (BridgeTap("tap9"), BridgeTap("tap8"))
    wish = BridgeWish("vmbr0", ports=("lan9",), taps=taps)
    attachment = BridgeAttachment(wish)
    await attachment.start()
    try:
        await _within(lambda: _vlans("tap9") == _vlans("lan9") == _vlans("tap8"), "the LAN port's VLANs")
        assert {1: {"PVID", "Egress Untagged"}, 20: set()}.items() <= _vlans("tap9").items()
        _run("bridge vlan add dev lan9 vid 100")
        _run("bridge vlan del dev lan9 vid 20")
        _run("bridge vlan add dev lan9 vid 5 pvid untagged")
        await _within(lambda: _vlans("tap9") == _vlans("lan9"), "a later change")
        assert 100 in _vlans("tap9") and 20 not in _vlans("tap9") and "PVID" in _vlans("tap9")[5]
        vlans = parse_vlans(("7 untagged", "30-39"))
        await attachment.change(BridgeWish("vmbr0", ports=("lan9",), taps=taps, vlans=vlans))
        expected = {7: {"PVID", "Egress Untagged"}, **{number: set() for number in range(30, 40)}}
        await _within(lambda: _vlans("tap9") == expected, "the configured VLANs")
    finally:
        await attachment.stop()


async def _within(condition: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + WITHIN_SECONDS
    while not await asyncio.to_thread(condition):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {WITHIN_SECONDS} s: {what}")
        await asyncio.sleep(0.05)


def _vlans(name: str) -> dict[int, set[str]]:
    """VLAN -> flags, as `bridge vlan` shows them."""
    found: dict[int, set[str]] = {}
    rows: list[dict[str, Any]] = json.loads(_text("bridge -j vlan show") or "[]")
    for row in rows:
        if row["ifname"] == name:
            for vlan in row["vlans"]:
                for number in range(vlan["vlan"], vlan.get("vlanEnd", vlan["vlan"]) + 1):
                    found[number] = set(vlan.get("flags", ()))
    return found


def _ip(*commands: str) -> None:
    for command in commands:
        _run(f"ip {command}")


def _run(command: str, *, check: bool = True) -> int:
    ended = subprocess.run(command.split(), capture_output=True, text=True, timeout=30, check=False)
    if check and ended.returncode:
        raise RuntimeError(f"{command}: {ended.stderr.strip()}")
    return ended.returncode


def _text(command: str) -> str:
    return subprocess.run(command.split(), capture_output=True, text=True, timeout=30, check=True).stdout
