"""Links, addresses and routes of the namespace that the calling thread is in, as iproute2 shows them."""

from __future__ import annotations

import asyncio
import difflib
import fcntl
import functools
import io
import json
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.lab.waiting import PATIENCE, NotInTime

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002


def shell(command: str) -> str:
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stderr}"
    return ended.stdout


def ip(*commands: str) -> None:
    """`ip` with one command a line, as one batch."""
    ended = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, f"{commands}: {ended.stderr}"


def show(command: str) -> Any:
    return json.loads(shell(f"ip -j -d {command}") or "[]")


def link(name: str) -> dict[str, Any] | None:
    ended = subprocess.run(
        ["ip", "-j", "-d", "link", "show", "dev", name],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return dict(json.loads(ended.stdout)[0]) if ended.returncode == 0 else None


def cable(name: str, *, up: bool = True, mac: str | None = None) -> None:
    """A LAN port `name` with a veth end `name`-x for the other side of the cable."""
    address = f"address {mac}" if mac else ""
    ip(f"link add {name} {address} type veth peer name {name}-x", f"link set {name}-x up")
    if up:
        ip(f"link set {name} up")


def tap(name: str) -> None:
    ip(f"tuntap add {name} mode tap")


@contextmanager
def plugged(name: str) -> Iterator[io.FileIO]:
    """A program that has the TAP open, without which it has no carrier."""
    with open("/dev/net/tun", "r+b", buffering=0) as device:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
        yield device


def is_forwarding(*ports: str) -> bool:
    """Whether all of these bridge ports forward: some time after they were set up."""
    return all("state forwarding" in shell(f"bridge link show dev {port}") for port in ports)


def members(bridge: str) -> set[str]:
    return {found["ifname"] for found in show(f"link show master {bridge}")} if link(bridge) else set()


def addresses(name: str) -> set[str]:
    """Global addresses of a link."""
    found = [address for entry in show(f"addr show dev {name}") for address in entry.get("addr_info", ())]
    return {address["local"] for address in found if address["scope"] == "global"}


VOLATILE = frozenset(
    {
        *("txqlen", "operstate", "qdisc", "stats64", "stats", "promiscuity", "allmulti", "flags", "gc_timer"),
        *(
            "hello_timer",
            "tcn_timer",
            "topology_change_timer",
            "linkmode",
            "ifindex",
            "link_index",
            "bridge_id",
        ),
        *("root_id", "designated_root", "valid_life_time", "preferred_life_time", "expires"),
        *("topology_change", "topology_change_detected"),
        *("tso_max_size", "tso_max_segs", "tentative", "optimistic", "state"),
    }
)


"""`state` of a bridge port follows from its carrier and from STP, both of which are seen elsewhere."""


def photograph(*, without: Sequence[str] = ()) -> dict[str, Any]:
    """All links, addresses and routes, without counters, timers and what depends on the moment."""

    def still(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: ("UP" in part if key == "flags" else still(part))
                for key, part in value.items()
                if (key not in VOLATILE and not key.endswith("_timer")) or key == "flags"
            }
        return [still(part) for part in value] if isinstance(value, list) else value

    links = {entry["ifname"]: still(entry) for entry in show("addr show") if entry["ifname"] not in without}
    for entry in links.values():
        entry["addr_info"] = [
            address
            for address in entry["addr_info"]
            if not (address["family"] == "inet6" and address["scope"] == "link")
        ]
    routes = [
        still(route)
        for family in ("-4", "-6")
        for route in json.loads(shell(f"ip -j {family} route show table all") or "[]")
        if not str(route["dst"]).startswith(("fe80", "ff00")) and route.get("table") != "local"
    ]
    key = functools.partial(json.dumps, sort_keys=True)
    return {"links": links, "routes": sorted(routes, key=key)}


async def within(
    condition: Callable[[], Any], what: str, seconds: float = 10.0, interval: float = 0.02
) -> float:
    """Wait until the condition holds, asked in a thread of its own; return how long that took.

    Raises:
        NotInTime: not within `seconds`.
    """
    started = time.monotonic()
    deadline = started + seconds * PATIENCE
    while True:
        is_late = time.monotonic() > deadline
        if await asyncio.to_thread(condition):
            return time.monotonic() - started
        if is_late:
            raise NotInTime(f"not within {seconds} s: {what}")
        await asyncio.sleep(interval)


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def assert_same_host(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Fails with the lines that differ."""
    old, new = (json.dumps(side, indent=1, sort_keys=True).splitlines() for side in (before, now))
    different = "\n".join(difflib.unified_diff(old, new, "before", "now", lineterm="", n=4))
    assert not different, different
