"""Counters of one tunnel that outlive its sessions: handshakes, renegotiations, peers by name."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bridged.dataplane.contract import Histogram, PeerCounters, PeerSnapshot
from bridged.protocol.session.terms import Negotiated
from bridged.runtime.snapshot import PeerStatus
from bridged.units import Seconds, UnixSeconds

DURATION_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PEER_NAMES_MAX: Final = 4096
"""Names that are remembered: a CA decides who gets one, but not how many."""

STATUSES_IN_A_STEP: Final = 100
"""About 3 ms of work."""


class Durations:
    """A histogram of seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(DURATION_BOUNDS) + 1)
        self._total = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(DURATION_BOUNDS, seconds)] += 1
        self._total += seconds

    def snapshot(self) -> Histogram:
        return Histogram(DURATION_BOUNDS, tuple(self._counts), self._total)


@dataclass
class TunnelStatistics:
    """Counters of one tunnel. Their keys are the labels in docs/reference/metrics.md."""

    handshakes: Counter[tuple[str, str]] = field(default_factory=Counter)
    authentications: Counter[tuple[str, str]] = field(default_factory=Counter)
    renegotiations: Counter[tuple[str, str]] = field(default_factory=Counter)
    control_drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    mac_conflicts: Counter[str] = field(default_factory=Counter)
    name_conflicts: int = 0
    crl_loads: Counter[str] = field(default_factory=Counter)
    durations: dict[str, Durations] = field(
        default_factory=lambda: {"initial": Durations(), "renegotiation": Durations()}
    )

    def note_plan(self, crl_next_update: UnixSeconds | None) -> None:
        """The tunnel uses a plan from now on; a plan with a revocation list was read with it."""
        if crl_next_update is not None:
            self.crl_loads["loaded"] += 1

    def note_handshake(self, phase: str, outcome: str, seconds: float) -> None:
        self.handshakes[phase, outcome] += 1
        if outcome == "established":
            self.durations[phase].observe(seconds)


@dataclass
class PeerRecord:
    """One peer name over all its sessions."""

    name: str
    connections: int = 0
    endpoint_changes: int = 0
    disconnects: Counter[str] = field(default_factory=Counter)
    past: PeerCounters = field(default_factory=PeerCounters)
    last_seen: UnixSeconds | None = None
    last_terms: Negotiated | None = None
    last_endpoint: str | None = None
    connected_since: UnixSeconds | None = None
    key_established: UnixSeconds | None = None
    rtt: float | None = None
    path_mtu: int | None = None
    gone_at: UnixSeconds | None = None

    def retire(self, snapshot: PeerSnapshot) -> None:
        """A session is over: keep its figures."""
        self.past = add_counters(self.past, snapshot.counters)
        self.last_seen = _newest(self.last_seen, snapshot.last_seen)

    def status(self, live: Iterable[PeerSnapshot], wrap: str, transport: str) -> PeerStatus:
        """The record plus the sessions that are up now."""
        sessions = list(live)
        counters = self.past
        seen = self.last_seen
        for session in sessions:
            counters = add_counters(counters, session.counters)
            seen = _newest(seen, session.last_seen)
        terms = self.last_terms
        return PeerStatus(
            name=self.name,
            connected=bool(sessions),
            sessions=len(sessions),
            endpoint=str(sessions[-1].endpoint) if sessions else self.last_endpoint,
            cipher=terms.cipher.value if terms else None,
            tls_version=terms.tls.version if terms else None,
            key_group=terms.tls.group if terms else None,
            key_derivation=terms.key_derivation if terms else None,
            framing=terms.framing if terms else None,
            wrap=wrap,
            transport=sessions[-1].endpoint.transport if sessions else transport,
            peer_version=terms.peer_version if terms else None,
            platform=terms.peer_platform if terms else None,
            connected_since=self.connected_since if sessions else None,
            last_seen=seen,
            key_established=self.key_established if sessions else None,
            certificate_not_after=terms.tls.peer_not_after if terms and terms.tls.peer_fingerprint else None,
            connections=self.connections,
            endpoint_changes=self.endpoint_changes,
            disconnects=dict(self.disconnects),
            counters=counters,
            fdb_entries=sum(session.fdb_entries for session in sessions),
            packet_id_used_ratio=max((s.packet_id_used_ratio for s in sessions), default=0.0),
            aead_used_ratio=max((s.aead_used_ratio for s in sessions), default=0.0),
            rtt=Seconds(self.rtt) if self.rtt is not None else None,
            path_mtu=self.path_mtu if sessions else None,
            remarks=terms.remarks if terms else (),
        )


class PeerBook:
    """Records by peer name. Configured names have one from the start, so a peer that never came is visible.

    Any other name is forgotten `retention` seconds after its last session.
    """

    def __init__(self, names: Iterable[str], retention: float = float("inf")) -> None:
        self._records = {name: PeerRecord(name) for name in names}
        self._configured = frozenset(self._records)
        self._retention = retention

    def apply(self, names: Iterable[str], retention: float) -> None:
        """Change the configured names and the retention time. Records stay."""
        before, self._configured = self._configured, frozenset(names)
        for name in before - self._configured:
            if not self._records[name].connections:
                del self._records[name]
        for name in self._configured - self._records.keys():
            self._records[name] = PeerRecord(name)
        self._retention = retention

    def record(self, name: str) -> PeerRecord:
        """The record of a name, made if it is new. Names beyond PEER_NAMES_MAX share `_other`."""
        known = self._records.get(name)
        if known is not None:
            return known
        if len(self._records) >= PEER_NAMES_MAX:
            name = "_other"
        return self._records.setdefault(name, PeerRecord(name))

    def records(self) -> list[PeerRecord]:
        """All of them."""
        return list(self._records.values())

    def note_established(self, name: str, terms: Negotiated, endpoint: str, now: UnixSeconds) -> None:
        record = self.record(name)
        record.connections += 1
        record.last_terms = terms
        record.last_endpoint = endpoint
        record.connected_since = now
        record.key_established = now
        record.gone_at = None

    def note_gone(self, name: str, now: UnixSeconds) -> None:
        """A session of this name is over. If it was the last one, its retention time begins."""
        self.record(name).gone_at = now

    def forget_expired(self, live: Collection[str], now: UnixSeconds) -> None:
        """Drop records whose retention time is over. Names in `live` have a session."""
        for name, record in list(self._records.items()):
            if name in self._configured or name in live or record.gone_at is None:
                continue
            if now - record.gone_at > self._retention:
                del self._records[name]

    def note_renegotiated(self, name: str, terms: Negotiated, now: UnixSeconds) -> None:
        record = self.record(name)
        record.last_terms = terms
        record.key_established = now

    def statuses(
        self, live: Mapping[str, list[PeerSnapshot]], wrap: str, transport: str
    ) -> Generator[None, None, tuple[PeerStatus, ...]]:
        """The status of all, in steps of STATUSES_IN_A_STEP."""
        found = []
        for number, (name, record) in enumerate(list(self._records.items()), start=1):
            found.append(record.status(live.get(name, ()), wrap, transport))
            if number % STATUSES_IN_A_STEP == 0:
                yield
        return tuple(found)


def add_counters(first: PeerCounters, second: PeerCounters) -> PeerCounters:
    """The sum, series by series."""
    return replace(
        first,
        **{
            name: add_counts(getattr(first, name), getattr(second, name))
            for name in ("frames", "bytes", "wire_bytes", "wire_datagrams", "sequence", "drops")
        },
    )


def add_counts(first: Mapping[Any, int], second: Mapping[Any, int]) -> dict[Any, int]:
    """The sum, key by key."""
    if not first or not second:
        return dict(first or second)
    return {key: first.get(key, 0) + second.get(key, 0) for key in {**first, **second}}


def _newest(first: UnixSeconds | None, second: UnixSeconds | None) -> UnixSeconds | None:
    if first is None or second is None:
        return second if first is None else first
    return max(first, second)
