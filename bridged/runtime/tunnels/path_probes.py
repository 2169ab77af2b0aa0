"""Probes the paths to a tunnel's peers (`mtu: auto`), and has the data plane fit what it sends to them.

Source: `bridged.protocol.packets.path_mtu`; decision 109. Asyncio; all methods run in the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

import structlog

from bridged.protocol.packets.path_mtu import PathMtu
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.sessions import Sessions
from bridged.supervision import SUPERVISOR
from bridged.units import PeerHandle

LEAST_IPV4: Final = 576
LEAST_IPV6: Final = 1280
AROUND_MOST: Final = 48 + 160
"""Bytes around a frame: IPv6 and UDP, and the most that any cipher and framing need."""
PER_TURN: Final = 32
"""Probes that one turn of the timer sends; others wait for the next."""
TURN_SECONDS: Final = 0.05
"""Between two turns of the timer, at least."""
ETHERNET: Final = 18


@dataclass(slots=True)
class _Search:
    link: PeerLink
    path: PathMtu


class PathProbes:
    """Follows links from `begin` to `end`. `note(link, octets)` hears of every result (None: not known)."""

    def __init__(self, sessions: Sessions, note: Callable[[PeerLink, int | None], None]) -> None:
        self._sessions = sessions
        self._note = note
        self._searches: dict[PeerHandle, _Search] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._on_timer = SUPERVISOR.guard("path_probes", self._handle_timer, sessions.plan.name)
        self._log = structlog.get_logger("bridged.tunnel").bind(tunnel=sessions.plan.name)

    def begin(self, link: PeerLink) -> None:
        """The session is established."""
        plan = self._sessions.plan
        if not plan.probes_paths or link.endpoint.transport == "tcp":
            return
        least = LEAST_IPV6 if link.endpoint.is_ipv6 else LEAST_IPV4
        largest = plan.session.tun_mtu + ETHERNET + AROUND_MOST
        most = max(least, min(largest, plan.wan_mtu_most or largest))
        path = PathMtu(least, most, self._sessions.now())
        self._searches[link.handle] = _Search(link, path)
        self._arm(path.next_deadline())

    def end(self, link: PeerLink) -> None:
        """The session is over. Harmless for one that was never begun."""
        if self._searches.pop(link.handle, None) is not None:
            self._note(link, None)

    def handle_float(self, link: PeerLink) -> None:
        """The peer is elsewhere: what was known of its path means nothing."""
        if link.handle in self._searches:
            self.end(link)
            self._use(link, None)
            self.begin(link)

    def handle_network_change(self) -> None:
        """Addresses, routes or links of this host changed."""
        for search in self._searches.values():
            search.path.handle_path_change(self._sessions.now())
        self._arm_for_all()

    def handle_answer(self, link: PeerLink, octets: int) -> None:
        """The peer answered a probe with a payload of `octets` bytes."""
        search = self._searches.get(link.handle)
        if search is not None:
            before = search.path.known
            search.path.handle_answer(octets, self._sessions.now())
            self._compare(search, before)
            self._arm(search.path.next_deadline())

    def close(self) -> None:
        """Stop the timer. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._searches.clear()

    def _arm(self, due: float) -> None:
        """Have the timer fire at `due`, if it would fire later; costs the same with any number of peers."""
        at = max(due, self._sessions.now() + TURN_SECONDS)
        if at >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._on_timer)

    def _arm_for_all(self) -> None:
        self._arm(min((search.path.next_deadline() for search in self._searches.values()), default=inf))

    def _handle_timer(self) -> None:
        self._timer, self._timer_at = None, inf
        now = self._sessions.now()
        due = [search for search in self._searches.values() if search.path.next_deadline() <= now]
        for search in due[:PER_TURN]:
            try:
                self._probe(search, now)
            except Exception as error:
                # A bug. Its deadline would stay in the past, and the timer would never rest.
                self._searches.pop(search.link.handle, None)
                SUPERVISOR.note_failure("path_probes", self._sessions.plan.name, error)
        self._arm_for_all()

    def _probe(self, search: _Search, now: float) -> None:
        before = search.path.known
        # The link here may refuse some sizes at once.
        while (probe := search.path.poll_probe(now)) is not None:
            payload = probe.payload.ljust(self._sessions.plan.session.tun_mtu + ETHERNET, b"\0")
            sent = search.link.probe_path(payload, probe.octets)
            if sent is None:
                search.path.note_withheld(now)
            else:
                search.path.note_sent(sent, now)
        self._compare(search, before)

    def _compare(self, search: _Search, before: int | None) -> None:
        if search.path.known != before:
            self._use(search.link, search.path.known)
            self._log.info("path_mtu", peer=search.link.name, bytes=search.path.known, before=before)

    def _use(self, link: PeerLink, octets: int | None) -> None:
        if link.is_attached:
            self._sessions.dataplane.use_path_mtu(link.handle, octets or 0)
        self._note(link, octets)
