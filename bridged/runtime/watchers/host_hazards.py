"""Finds what slows or endangers tunnels on this host: each kind with its explanation and cure.

For `HostWatch` while the daemon runs, and for `bridged check`. Changes nothing; skips what it cannot find.
Blocking, a few milliseconds; in the network namespace of the calling thread.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from bridged import WRITTEN_AFTER
from bridged.errors import NetlinkError
from bridged.netlink.offloads import GRO, UDP_SEGMENTATION, link_offloads
from bridged.netlink.tunnel_route import links_towards
from bridged.runtime.kernel_release import find_host_fault, upstream_release, written
from bridged.units import UnixSeconds
from bridged_tap import TapError, check_device

DESTINATIONS_MAX: Final = 4
"""Destinations that are looked at: most hosts have one way to all peers, and each look costs 1 ms."""


def standing_hazards() -> dict[str, str]:
    """`kernel_fault`, which no change but a reboot ends."""
    text = kernel_fault(upstream_release(platform.release(), platform.version()))
    return {"kernel_fault": text} if text else {}


def passing_hazards() -> dict[str, str]:
    """`clock_old` and `tun_missing`."""
    found = {}
    if text := clock_fault(UnixSeconds(time.time())):
        found["clock_old"] = text
    try:
        check_device()
    except TapError as error:
        found["tun_missing"] = f"no adapter can be opened again: {error}"
    return found


def wan_links(destinations: Collection[str]) -> list[str]:
    """The links that lead to these IP addresses; names, and what has no route now, lead nowhere.

    `destinations`: as `tunnel_route.check_ports` takes them.
    """
    try:
        return links_towards(list(dict.fromkeys(destinations))[:DESTINATIONS_MAX])
    except (NetlinkError, OSError):
        return []


def wan_hazards(links: Collection[str]) -> dict[str, str]:
    """`wan_gro` and `wan_udp_segmentation` of links that carry tunnels; not of what a link cannot do."""
    without_gro, without_segmentation = [], []
    for name in links:
        try:
            offloads = link_offloads(name)
        except OSError:
            continue  # gone meanwhile
        missing = {kind for kind, offload in offloads.items() if offload.can_change and not offload.is_on}
        if GRO in missing:
            without_gro.append(name)
        if UDP_SEGMENTATION in missing:
            without_segmentation.append(name)
    found = {}
    if without_gro:
        found["wan_gro"] = (
            f"{_and(without_gro)} carries tunnels with GRO off: received packets are not joined, which can "
            f"cost CPU and speed. Turn it on: {_commands(without_gro, 'gro')}"
        )
    fault = find_host_fault(upstream_release(platform.release(), platform.version()))
    if without_segmentation and not (fault and fault.of == "wan"):
        found["wan_udp_segmentation"] = (
            f"{_and(without_segmentation)} carries tunnels with UDP segmentation off: the CPU cuts what the "
            f"card could. Turn it on: {_commands(without_segmentation, UDP_SEGMENTATION)}"
        )
    return found


def clock_fault(now: UnixSeconds) -> str:
    """What is wrong with a clock that shows `now`; empty: nothing that shows."""
    if now >= WRITTEN_AFTER.timestamp():
        return ""
    return (
        f"the clock shows {datetime.fromtimestamp(now, UTC):%Y-%m-%d}, but this program was made after "
        f"{WRITTEN_AFTER:%Y-%m-%d}: certificates count as not valid yet. Set the clock: timedatectl "
        "set-ntp true, or date -s 'YYYY-MM-DD HH:MM'"
    )


def kernel_fault(release: str) -> str:
    """What is known about a kernel of this release, with the source; empty: nothing."""
    fault = find_host_fault(release)
    if fault is None:
        return ""
    return (
        f"kernel {release} {fault.text}. Update it to {written(fault.repaired)} or later (apt update, apt "
        f"full-upgrade, reboot); see {fault.source}"
    )


def _commands(names: list[str], feature: str) -> str:
    return "; ".join(f"ethtool -K {name} {feature} on" for name in names)


def _and(names: list[str]) -> str:
    return " and ".join(names)
