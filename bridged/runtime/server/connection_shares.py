"""Limits TCP connections that have proved nothing: in all, and in equal shares of hosts and networks.

Source: docs/decisions/0087. No sockets, no clock; callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from bridged.addresses import Endpoint, network_of

CONNECTIONS_MAX: Final = 512
"""Connections whose peer has not shown its certificate yet."""


@dataclass(slots=True)
class _Entry:
    since: float
    shares: tuple[Hashable, Hashable]


class ConnectionShares:
    """Connections by endpoint, `capacity` at most.

    When all are taken, the oldest connection of the host or network with the most of them gives way; if that
    is the newcomer's own, its oldest one.
    """

    def __init__(self, capacity: int = CONNECTIONS_MAX) -> None:
        self.capacity = capacity
        self._entries: dict[Endpoint, _Entry] = {}
        self._shares: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._entries

    def enter(self, endpoint: Endpoint, now: float) -> Endpoint | None:
        """Take a connection in; returns the one that gives way."""
        self.leave(endpoint)
        shares = (endpoint.host, network_of(endpoint.host))
        self._entries[endpoint] = _Entry(now, shares)
        self._shares.update(shares)
        if len(self._entries) <= self.capacity:
            return None
        oldest = self._who_gives_way()
        self.leave(oldest)
        return oldest

    def leave(self, endpoint: Endpoint) -> None:
        """It has proved who it is, or has ended. Harmless for one that is not here."""
        entry = self._entries.pop(endpoint, None)
        if entry is None:
            return
        for share in entry.shares:
            self._shares[share] -= 1
            if not self._shares[share]:
                del self._shares[share]

    def older_than(self, moment: float) -> list[Endpoint]:
        """Connections that came before."""
        found = []
        for endpoint, entry in self._entries.items():
            if entry.since >= moment:
                break
            found.append(endpoint)
        return found

    def _who_gives_way(self) -> Endpoint:
        def weight(entry: _Entry) -> tuple[int, int]:
            host, network = entry.shares
            return self._shares[network], self._shares[host]

        # `max` takes the first of equals, which is the oldest.
        return max(self._entries, key=lambda endpoint: weight(self._entries[endpoint]))
