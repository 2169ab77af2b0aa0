"""Totals that only grow, kept while frames pass and read by snapshots.

Source: docs/reference/metrics.md, "Drop reasons".
No I/O. Written under the loop's gate; a reader copies whole dicts and lists, which needs no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from bridged.dataplane.contract import Direction, FrameKind, Histogram, PeerCounters
from bridged.dataplane.portable.limits import KeyUse

KINDS: Final[tuple[FrameKind, ...]] = ("unicast", "unknown_unicast", "broadcast", "multicast")
UNICAST, UNKNOWN_UNICAST, BROADCAST, MULTICAST = range(4)
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

_LARGEST_COUNTED: Final = 2048
"""More frames than one system call can carry: a super-frame has 65535 octets of segments of 36 and more."""

Drops = dict[tuple[Direction, str], int]


class Traffic:
    """Frames, octets and outer datagrams of one peer. Lists are indexed by kind."""

    __slots__ = (
        "drops",
        "received_bytes",
        "received_frames",
        "retired",
        "sent_bytes",
        "sent_frames",
    )

    def __init__(self) -> None:
        self.received_frames = [0] * len(KINDS)
        self.received_bytes = [0] * len(KINDS)
        self.sent_frames = [0] * len(KINDS)
        self.sent_bytes = [0] * len(KINDS)
        self.retired = (0, 0, 0, 0)
        """Datagrams received and sent, octets received and sent, under keys that have gone."""
        self.drops: Drops = {}

    def counters(self, uses: Iterable[KeyUse]) -> PeerCounters:
        """All figures now; `uses` of the keys that are there."""
        received, sent, received_octets, sent_octets = self.retired
        for use in uses:
            received += use.packets_received
            sent += use.packets_sent
            received_octets += use.octets_received
            sent_octets += use.octets_sent
        return PeerCounters(
            frames=_by_kind(self.received_frames, self.sent_frames),
            bytes=_by_kind(self.received_bytes, self.sent_bytes),
            wire_bytes={"receive": received_octets, "transmit": sent_octets},
            wire_datagrams={"receive": received, "transmit": sent},
            drops=self.drops.copy(),
        )

    def retire(self, use: KeyUse) -> None:
        """A key goes; its figures stay."""
        received, sent, received_octets, sent_octets = self.retired
        self.retired = (
            received + use.packets_received,
            sent + use.packets_sent,
            received_octets + use.octets_received,
            sent_octets + use.octets_sent,
        )


class BatchSizes:
    """How often a batch had how many members; a histogram with bounds 1, 2, 4 … 64 is made of it on demand.

    Counting is one addition, for it happens at every system call.
    """

    __slots__ = ("_sizes", "ones")

    def __init__(self) -> None:
        self._sizes = [0] * (_LARGEST_COUNTED + 2)
        self.ones = 0
        """Batches of one, which are counted by whoever has them, apart from `observe`."""

    def observe(self, size: int, times: int = 1) -> None:
        self._sizes[size if size <= _LARGEST_COUNTED else _LARGEST_COUNTED + 1] += times

    def histogram(self) -> Histogram:
        counts = [0] * (len(BATCH_BOUNDS) + 1)
        sizes = [*enumerate(self._sizes), (1, self.ones)]
        for size, times in sizes:
            counts[bisect_left(BATCH_BOUNDS, size)] += times
        total = sum(size * times for size, times in sizes)
        return Histogram(BATCH_BOUNDS, tuple(counts), float(total))


def count_drop(tables: Iterable[Drops], direction: Direction, reason: str, frames: int = 1) -> None:
    """Add to every table (the data plane's, and the peer's where there is one)."""
    key = (direction, reason)
    for table in tables:
        table[key] = table.get(key, 0) + frames


def _by_kind(received: list[int], sent: list[int]) -> dict[tuple[Direction, FrameKind], int]:
    figures: dict[tuple[Direction, FrameKind], int] = {}
    for kind, value in zip(KINDS, received, strict=True):
        figures["receive", kind] = value
    for kind, value in zip(KINDS, sent, strict=True):
        figures["transmit", kind] = value
    return figures
