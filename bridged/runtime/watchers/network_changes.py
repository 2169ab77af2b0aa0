"""Announces changes of the host's addresses, routes and links to the tunnels, at most a few a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from bridged.netlink.watch import HostEvent, LinkWatch
from bridged.supervision import SUPERVISOR, Timer

QUIET_SECONDS: Final = 0.25
"""Pause between two announcements. A change during the pause is announced at its end."""


class NetworkChanges:
    """Calls `announce` in the event loop when the route to the peers may have changed.

    Ignores changes of links in `own` (our TAPs), because no peer is reached through them. `own` may be
    replaced.
    """

    def __init__(self, watch: LinkWatch, announce: Callable[[], None]) -> None:
        self.own: Collection[str] = frozenset()
        self._announce = announce
        self._quiet_until = 0.0
        self._timer: Timer | None = None
        self._unsubscribe = watch.subscribe(self._hear)

    def close(self) -> None:
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hear(self, events: frozenset[HostEvent]) -> None:
        if self._timer is not None or all(event.link in self.own for event in events):
            return
        loop = asyncio.get_running_loop()
        wait = max(0.0, self._quiet_until - loop.time())
        self._timer = SUPERVISOR.after("network_changes", wait, self._announce_now)

    def _announce_now(self) -> None:
        self._announce()
        self._timer = None
        self._quiet_until = asyncio.get_running_loop().time() + QUIET_SECONDS
