"""Checks regularly what this host does to tunnels and bridges, and logs each hazard once, with its cure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import structlog

from bridged.catalogue.counters import SLOWING_HAZARDS
from bridged.netlink.netfilter import DroppingChain, dropping_chains
from bridged.runtime.watchers.host_hazards import (
    passing_hazards,
    standing_hazards,
    wan_hazards,
    wan_links,
)
from bridged.supervision import SUPERVISOR, Timer

INTERVAL_SECONDS: Final = 5.0
"""Docker may start and enable the filter at any time."""
WAN_ROUNDS: Final = 3
"""Every so many rounds the links that carry tunnels are looked at."""


class HostWatch:
    """Checks from `start` to `stop`. `warnings`: kind -> what is wrong now, and the cure."""

    def __init__(self) -> None:
        self.bridges: Collection[str] = ()
        """The bridges that are watched; may be replaced."""
        self.destinations: Callable[[], Collection[str]] = tuple
        """Gives the IP addresses that tunnels send to, or listen on; may be replaced."""
        self.warnings: dict[str, str] = {}
        self._round = 0
        self._wan_links: list[str] = []
        self._wan: dict[str, str] = {}
        self._timer: Timer | None = None
        self._log = structlog.get_logger("bridged.host")

    def start(self) -> None:
        """Begin, in the running loop."""
        SUPERVISOR.guard("host_watch", self.look)()
        self._timer = SUPERVISOR.every("host_watch", INTERVAL_SECONDS, self.look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Log what is new, once.

        Raises:
            NetlinkError: the kernel did not answer.
        """
        if self._round % WAN_ROUNDS == 0:
            # While no peer is connected, and remotes are names, nothing is known to lead anywhere.
            self._wan_links = wan_links(self.destinations()) or self._wan_links
            self._wan = wan_hazards(self._wan_links)
        self._round += 1
        found = standing_hazards() | passing_hazards() | self._wan
        for kind in [kind for kind in self.warnings if kind not in found and kind != "bridge_netfilter"]:
            del self.warnings[kind]
            self._log.info("host_hazard_over", kind=kind)
        for kind, text in found.items():
            if self.warnings.get(kind) != text:
                self.warnings[kind] = text
                log = self._log.info if kind in SLOWING_HAZARDS else self._log.warning
                log("host_hazard", kind=kind, detail=text)
        self._look_at_packet_filter()

    def _look_at_packet_filter(self) -> None:
        chains = dropping_chains(self.bridges)
        text = _words(chains, sorted(self.bridges)) if chains else None
        if text == self.warnings.get("bridge_netfilter"):
            return
        if text is None:
            del self.warnings["bridge_netfilter"]
            self._log.info("bridge_netfilter_passes")
        else:
            self.warnings["bridge_netfilter"] = text
            self._log.warning("bridge_netfilter_drops", detail=text)


def _words(chains: list[DroppingChain], bridges: list[str]) -> str:
    switches = " ".join(sorted({f"{chain.switch}=0" for chain in chains}))
    rules = "; ".join(
        f"nft insert rule {chain} iifname {name} oifname {name} accept"
        for chain in chains
        for name in bridges
    )
    names = ", ".join(map(str, chains))
    return (
        f"IP packets that cross a bridge go through the packet filter ({names}), whose policy drops them. "
        f"Let them pass: sysctl -w {switches}; or: {rules}"
    )
