"""Totals that only grow, kept while frames pass and read by snapshots.

Source: docs/reference/metrics.md, "Drop reasons".
No I/O. Written under the loop's gate; a reader copies whole dicts and lists, which needs no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from bridged.catalogue.figures import BATCHES
from bridged.dataplane.contract import Direction, FrameKind, Histogram

KINDS: Final[tuple[FrameKind, ...]] = ("unicast", "unknown_unicast", "broadcast", "multicast")
UNICAST, UNKNOWN_UNICAST, BROADCAST, MULTICAST = range(4)
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

_LARGEST_COUNTED: Final = 2048
"""More frames than one system call can carry: a super-frame has 65535 bytes, in segments of 36 and more."""

Drops = dict[tuple[Direction, str], int]


class BatchSizes:
    """How many batches there were of each size. `histogram` has the bounds 1, 2, 4 … 64.

    It is counted at every system call, and is therefore one addition.
    """

    __slots__ = ("_sizes", "ones")

    def __init__(self) -> None:
        self._sizes = [0] * (_LARGEST_COUNTED + 2)
        self.ones = 0
        """Batches of one; the hot path counts them here itself."""

    def observe(self, size: int) -> None:
        """Count a batch of this size."""
        self._sizes[size if size <= _LARGEST_COUNTED else _LARGEST_COUNTED + 1] += 1

    def histogram(self) -> Histogram:
        """All batches up to now; it may be called from any thread."""
        counts = [0] * (len(BATCH_BOUNDS) + 1)
        sizes = [*enumerate(self._sizes), (1, self.ones)]
        for size, times in sizes:
            counts[bisect_left(BATCH_BOUNDS, size)] += times
        total = sum(size * times for size, times in sizes)
        return Histogram(BATCH_BOUNDS, tuple(counts), float(total))


def new_batch_sizes() -> dict[str, BatchSizes]:
    """Of each kind of batch that this build counts (bridged/catalogue/figures.py), by name."""
    return {batch.name: BatchSizes() for batch in BATCHES if "portable" in batch.sources}


class DropCounter:
    """Frames and packets that one data plane lost, by direction and reason; `totals` only grow."""

    __slots__ = ("totals",)

    def __init__(self) -> None:
        self.totals: Drops = {}

    def count(
        self, direction: Direction, reason: str, frames: int = 1, peer_drops: Drops | None = None
    ) -> None:
        """Count lost frames or packets, also in the drops of the peer concerned (None: of no peer)."""
        if not frames:
            return
        key = (direction, reason)
        self.totals[key] = self.totals.get(key, 0) + frames
        if peer_drops is not None:
            peer_drops[key] = peer_drops.get(key, 0) + frames
