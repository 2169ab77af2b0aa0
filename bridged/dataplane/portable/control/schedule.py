"""When to look at which peer's timers. Finding the next one costs the same for any number of peers.

Pure: moments are monotonic seconds.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from bridged.units import PeerHandle

SPARE_ENTRIES: Final = 64


class Schedule:
    """At most one moment for each peer.

    The heap also holds outdated moments, at most as many as there are peers, and SPARE_ENTRIES more.
    """

    def __init__(self) -> None:
        self._moments: dict[PeerHandle, float] = {}
        self._heap: list[tuple[float, PeerHandle]] = []

    def set(self, handle: PeerHandle, moment: float | None) -> None:
        """Set when to look at the peer (None: never); this replaces the moment set before."""
        if moment is None:
            self._moments.pop(handle, None)
        else:
            self._moments[handle] = moment
            heappush(self._heap, (moment, handle))
        if len(self._heap) > 2 * len(self._moments) + SPARE_ENTRIES:
            self._heap = [(at, known) for known, at in self._moments.items()]
            heapify(self._heap)

    def next(self) -> float:
        """The earliest moment (inf: there is none)."""
        while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else float("inf")

    def take_due(self, now: float) -> PeerHandle | None:
        """Remove and return a peer whose moment has come, the earliest first; None if there is none."""
        if self.next() > now:
            return None
        _, handle = heappop(self._heap)
        del self._moments[handle]
        return handle
