"""Announces the addresses that one bridge or its ports got: at once, and once more two seconds later.

A neighbour that heard something else a moment ago believes only the second announcement.
Blocking, a few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bridged.link_planning.actions import Action, AddAddress, AddRoute
from bridged.link_planning.links import HostLinks
from bridged.netlink.announce import announce
from bridged.netlink.host import Host
from bridged.netlink.inet6 import solicit_routers

REPEAT_ANNOUNCEMENT_SECONDS = 2.0
"""RFC 5227, section 1.1: ANNOUNCE_NUM is 2, ANNOUNCE_INTERVAL 2 seconds."""


class Announcer:
    """`host` gives the netlink socket of the calling thread."""

    def __init__(self, host: Callable[[], Host]) -> None:
        self._host = host
        self._to_repeat: list[AddAddress] = []
        self._repeat_at = 0.0

    def announce(self, actions: Sequence[Action]) -> None:
        """`actions` were done: announce added addresses, and ask routers where the kernel's own moved."""
        self._solicit(actions)
        added = [action for action in actions if isinstance(action, AddAddress)]
        if added:
            announce(added, self._holders(added))
            self._to_repeat += added
            self._repeat_at = time.monotonic() + REPEAT_ANNOUNCEMENT_SECONDS

    def announce_again(self) -> None:
        """Repeat what is due, as far as the addresses are still there."""
        if not self._to_repeat or time.monotonic() < self._repeat_at:
            return
        added, self._to_repeat = self._to_repeat, []
        observed = self._holders(added)
        held = {(address.link, address.key) for address in observed.addresses}
        announce([add for add in added if (add.address.link, add.address.key) in held], observed)

    def next_due(self) -> float | None:
        """When to call `announce_again` (monotonic seconds); None: nothing waits."""
        return self._repeat_at if self._to_repeat else None

    def _solicit(self, actions: Sequence[Action]) -> None:
        """The kernel makes addresses and routes of its own again when it hears an advertisement."""
        links = {action.link for action in actions if _is_of_the_kernel(action)}
        for link in self._host().observe(links).links if links else ():
            if link.name in links:
                solicit_routers(link)

    def _holders(self, added: Sequence[AddAddress]) -> HostLinks:
        return self._host().observe({action.link for action in added})


def _is_of_the_kernel(action: Action) -> bool:
    match action:
        case AddAddress(address):
            return address.is_kernels
        case AddRoute(route):
            return route.is_kernels
        case _:
            return False
