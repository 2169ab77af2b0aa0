"""Decides which peers have their own series, and sums ("folds") the rest.

No counter may fall: a folded peer stays folded while the process lives, and the counts of a folded peer that
vanished stay in the sum. Pure: no I/O.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

from bridged.dataplane.contract import Direction, FrameKind, PeerCounters
from bridged.runtime.snapshot import PeerStatus

OTHER: Final = "_other"
HASH_DIGITS: Final = 16

PeerKey = tuple[str, str]


class Totals(Protocol):
    """The counters of one peer, or of several together."""

    @property
    def frames(self) -> Mapping[tuple[Direction, FrameKind], int]: ...
    @property
    def bytes(self) -> Mapping[tuple[Direction, FrameKind], int]: ...
    @property
    def wire_bytes(self) -> Mapping[Direction, int]: ...
    @property
    def wire_datagrams(self) -> Mapping[Direction, int]: ...
    @property
    def sequence(self) -> Mapping[str, int]: ...
    @property
    def drops(self) -> Mapping[tuple[Direction, str], int]: ...


@dataclass(slots=True)
class Sum:
    """The sum of several peers of one tunnel. Ratios and last-seen are maxima."""

    connected: int = 0
    sessions: int = 0
    connections: int = 0
    endpoint_changes: int = 0
    fdb_entries: int = 0
    packet_id_used_ratio: float = 0.0
    aead_used_ratio: float = 0.0
    last_seen: float | None = None
    disconnects: Counter[str] = field(default_factory=Counter)
    frames: Counter[tuple[Direction, FrameKind]] = field(default_factory=Counter)
    bytes: Counter[tuple[Direction, FrameKind]] = field(default_factory=Counter)
    wire_bytes: Counter[Direction] = field(default_factory=Counter)
    wire_datagrams: Counter[Direction] = field(default_factory=Counter)
    sequence: Counter[str] = field(default_factory=Counter)
    drops: Counter[tuple[Direction, str]] = field(default_factory=Counter)

    def add_totals(self, peer: PeerStatus) -> None:
        """Add the counters, which never fall."""
        self.connections += peer.connections
        self.endpoint_changes += peer.endpoint_changes
        self.disconnects.update(peer.disconnects)
        self.frames.update(peer.counters.frames)
        self.bytes.update(peer.counters.bytes)
        self.wire_bytes.update(peer.counters.wire_bytes)
        self.wire_datagrams.update(peer.counters.wire_datagrams)
        self.sequence.update(peer.counters.sequence)
        self.drops.update(peer.counters.drops)

    def add_present(self, peer: PeerStatus) -> None:
        """Add the present values."""
        self.connected += peer.connected
        self.sessions += peer.sessions
        self.fdb_entries += peer.fdb_entries
        self.packet_id_used_ratio = max(self.packet_id_used_ratio, peer.packet_id_used_ratio)
        self.aead_used_ratio = max(self.aead_used_ratio, peer.aead_used_ratio)
        if peer.last_seen is not None:
            self.last_seen = max(self.last_seen or 0.0, peer.last_seen)

    def copy_totals(self) -> Sum:
        return Sum(
            connections=self.connections,
            endpoint_changes=self.endpoint_changes,
            disconnects=self.disconnects.copy(),
            frames=self.frames.copy(),
            bytes=self.bytes.copy(),
            wire_bytes=self.wire_bytes.copy(),
            wire_datagrams=self.wire_datagrams.copy(),
            sequence=self.sequence.copy(),
            drops=self.drops.copy(),
        )


def totals_of(peer: PeerStatus | Sum) -> Totals:
    """What was counted of a peer, or of the sum of several."""
    return peer if isinstance(peer, Sum) else peer.counters


class PeerFold:
    """Decides once for each (tunnel, peer name). Not thread-safe: one scrape at a time.

    `max_peers`: peers with their own series, over all tunnels. `label`: content of the label `peer`.
    """

    def __init__(self, max_peers: int, label: Literal["name", "hash", "none"]) -> None:
        self._label = label
        self.limit(max_peers)
        self._shown: set[PeerKey] = set()
        self._folded: dict[PeerKey, PeerStatus] = {}
        self._gone: dict[str, Sum] = {}

    def limit(self, max_peers: int) -> None:
        """Change the number of shown peers. Peers that are shown or folded stay so."""
        self._max_peers = 0 if self._label == "none" else max_peers

    def divide(
        self, tunnels: Iterable[tuple[str, tuple[PeerStatus, ...]]]
    ) -> tuple[list[tuple[PeerKey, PeerStatus]], dict[str, Sum], int]:
        """The shown peers with their (tunnel, label), the sum of each tunnel's others, and their number."""
        present = _by_key(tunnels)
        self._shown &= present.keys()
        shown: list[tuple[PeerKey, PeerStatus]] = []
        folded: dict[PeerKey, PeerStatus] = {}
        for key, peer in present.items():
            if self._may_show(key):
                self._shown.add(key)
                shown.append(((key[0], self.label_of(peer.name)), peer))
            else:
                folded[key] = peer
        self._bury(folded)
        sums = {tunnel: total.copy_totals() for tunnel, total in self._gone.items()}
        for (tunnel, _), peer in folded.items():
            total = sums.setdefault(tunnel, Sum())
            total.add_totals(peer)
            total.add_present(peer)
        self._folded = folded
        return shown, sums, len(folded)

    def label_of(self, name: str) -> str:
        """The value of the label `peer`."""
        octets = name.encode("utf-8", "replace")
        if self._label == "hash":
            return hashlib.sha256(octets).hexdigest()[:HASH_DIGITS]
        return octets.decode("utf-8")

    def _may_show(self, key: PeerKey) -> bool:
        if key in self._shown:
            return True
        was_folded = key in self._folded
        return not was_folded and key[1] != OTHER and len(self._shown) < self._max_peers

    def _bury(self, folded: Mapping[PeerKey, PeerStatus]) -> None:
        for key, peer in self._folded.items():
            if key not in folded:
                self._gone.setdefault(key[0], Sum()).add_totals(peer)


def _by_key(tunnels: Iterable[tuple[str, tuple[PeerStatus, ...]]]) -> dict[PeerKey, PeerStatus]:
    present: dict[PeerKey, PeerStatus] = {}
    for tunnel, peers in tunnels:
        for peer in peers:
            key = (tunnel, peer.name)
            present[key] = _merged(present[key], peer) if key in present else peer
    return present


def _merged(one: PeerStatus, other: PeerStatus) -> PeerStatus:
    """Merge two entries of one name; values that are not numbers come from the connected one."""
    total = Sum()
    for peer in (one, other):
        total.add_totals(peer)
        total.add_present(peer)
    base = other if other.connected and not one.connected else one
    counters = PeerCounters(
        frames=dict(total.frames),
        bytes=dict(total.bytes),
        wire_bytes=dict(total.wire_bytes),
        wire_datagrams=dict(total.wire_datagrams),
        sequence=dict(total.sequence),
        drops=dict(total.drops),
    )
    return replace(
        base,
        connected=bool(total.connected),
        sessions=total.sessions,
        connections=total.connections,
        endpoint_changes=total.endpoint_changes,
        disconnects=dict(total.disconnects),
        counters=counters,
        fdb_entries=total.fdb_entries,
    )
