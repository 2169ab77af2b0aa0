"""The figures of a data plane at one moment: `DataPlane.snapshot`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bridged.addresses import Endpoint
from bridged.units import PeerHandle, UnixSeconds

Direction = Literal["receive", "transmit"]
"""`receive`: decrypted from a peer; `transmit`: encrypted for a peer."""

FrameKind = Literal["unicast", "unknown_unicast", "broadcast", "multicast"]


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """Totals of one peer since it was added. They never fall."""

    frames: Mapping[tuple[Direction, FrameKind], int] = field(default_factory=dict)
    bytes: Mapping[tuple[Direction, FrameKind], int] = field(default_factory=dict)
    """Bytes of frames, without FCS and tunnel overhead."""
    wire_bytes: Mapping[Direction, int] = field(default_factory=dict)
    """Bytes of outer UDP payload, or of packets in TCP streams without their lengths."""
    wire_datagrams: Mapping[Direction, int] = field(default_factory=dict)
    sequence: Mapping[str, int] = field(default_factory=dict)
    """`skipped`: packet ids of the peer that were jumped over; `late`: packets that came after all."""
    drops: Mapping[tuple[Direction, str], int] = field(default_factory=dict)
    """By reason, as docs/reference/metrics.md lists them."""


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """One peer at one moment. Ratios are 0..1, of the most worn key."""

    handle: PeerHandle
    endpoint: Endpoint
    counters: PeerCounters
    last_seen: UnixSeconds | None = None
    """When the newest authenticated packet came (None: none yet)."""
    fdb_entries: int = 0
    replay_mark: int = 0
    """Of a static key: time (upper 32 bits) and id of the newest packet that was accepted; else 0."""
    packet_id_used_ratio: float = 0.0
    aead_used_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` observations lie in (`bounds[i-1]`, `bounds[i]`], the last count is of all above.

    `total` is the sum of all observed values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class DataplaneSnapshot:
    """All figures of one data plane at one moment. Taking it never blocks traffic."""

    dataplane: str
    aead: str
    """The cipher of the latest key; empty: there was none."""
    workers: int
    peers: tuple[PeerSnapshot, ...]
    drops: Mapping[tuple[Direction, str], int]
    """By direction and reason, including those of no peer."""
    fdb_entries: int
    fdb_capacity: int
    counts: Mapping[str, Mapping[str, int]]
    """Totals by family and name; all that this build counts are there (bridged/catalogue/counters.py)."""
    offloads: Mapping[str, bool]
    """By name; all of bridged/catalogue/figures.py are there."""
    offload_fallbacks: Mapping[tuple[str, str], int]
    """By offload and cause."""
    queues: Mapping[str, tuple[int, int]]
    """Depth and capacity by name; all that this build has are there, as of the histograms."""
    histograms: Mapping[str, Histogram]
    thread_cpu: Mapping[str, float]
    """Processor seconds by thread name."""
