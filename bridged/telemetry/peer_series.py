"""The series of one peer. Label sets are built once and kept: a scrape of 1,000 peers stays short.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client.samples import Sample

from bridged.catalogue.counters import DISCONNECT_REASONS, SEQUENCE_EVENTS
from bridged.runtime.snapshot import PeerStatus
from bridged.telemetry.exposition import Labels
from bridged.telemetry.families import Families
from bridged.telemetry.labels import DIRECTIONS, DROP_CLASSES, FRAME_KINDS, drop_class
from bridged.telemetry.metrics_table import ROWS
from bridged.telemetry.peer_totals import Sum, totals_of

PEER_ROWS: Final = tuple(row.name for row in ROWS.values() if row.labels[:2] == ("tunnel", "peer"))
_FULL: Final = {name: ROWS[name].full_name for name in PEER_ROWS}
_PLAIN: Final = (
    ("peer_connected", "connected"),
    ("peer_sessions", "sessions"),
    ("peer_connections_total", "connections"),
    ("peer_endpoint_changes_total", "endpoint_changes"),
    ("peer_fdb_entries", "fdb_entries"),
    ("peer_packet_id_used_ratio", "packet_id_used_ratio"),
    ("peer_aead_used_ratio", "aead_used_ratio"),
)
_WHERE_KNOWN: Final = (
    ("peer_last_seen_timestamp_seconds", "last_seen"),
    ("peer_connected_since_timestamp_seconds", "connected_since"),
    ("peer_key_established_timestamp_seconds", "key_established"),
    ("peer_certificate_not_after_timestamp_seconds", "certificate_not_after"),
    ("peer_rtt_seconds", "rtt"),
    ("peer_path_mtu_bytes", "path_mtu"),
)
_MATRIX: Final = (("peer_frames_total", "frames"), ("peer_bytes_total", "bytes"))
_BY_DIRECTION: Final = (
    ("peer_wire_bytes_total", "wire_bytes"),
    ("peer_wire_datagrams_total", "wire_datagrams"),
)


_new: Final = tuple.__new__


class PeerSeries:
    """Makes the samples of one (tunnel, peer label). Scrapes share its label sets."""

    __slots__ = ("_base", "_classes", "_directions", "_info", "_kinds", "_labels", "_order", "_reasons")

    def __init__(self, tunnel: str, label: str) -> None:
        base = Labels({"tunnel": tunnel, "peer": label})
        self._base = base
        self._kinds = {
            (direction, kind): Labels({**base, "direction": direction, "kind": kind})
            for direction in DIRECTIONS
            for kind in FRAME_KINDS
        }
        self._directions = {direction: Labels({**base, "direction": direction}) for direction in DIRECTIONS}
        self._classes = {
            (direction, name): Labels({**base, "direction": direction, "class": name})
            for direction in DIRECTIONS
            for name in DROP_CLASSES
        }
        self._order = {event: Labels({**base, "event": event}) for event in SEQUENCE_EVENTS}
        self._info: tuple[str | None, ...] = ()
        self._labels = base
        self._reasons = {reason: Labels({**base, "reason": reason}) for reason in DISCONNECT_REASONS}

    def sample(self, into: dict[str, list[Sample]], peer: PeerStatus | Sum) -> None:
        """Append the peer's samples to the lists in `into`, one list for each name of PEER_ROWS."""
        base = self._base
        for name, attribute in _PLAIN:
            into[name].append(_sample(_FULL[name], base, getattr(peer, attribute)))
        for name, attribute in _WHERE_KNOWN:
            value = getattr(peer, attribute, None)
            if value is not None:
                into[name].append(_sample(_FULL[name], base, value))
        counters = totals_of(peer)
        for name, attribute in _MATRIX:
            _append(into[name], _FULL[name], self._kinds, getattr(counters, attribute))
        for name, attribute in _BY_DIRECTION:
            _append(into[name], _FULL[name], self._directions, getattr(counters, attribute))
        _append(into["peer_sequence_total"], _FULL["peer_sequence_total"], self._order, counters.sequence)
        by_class: dict[tuple[str, str], int] = {}
        for (direction, reason), number in counters.drops.items():
            key = (direction, drop_class(reason))
            by_class[key] = by_class.get(key, 0) + number
        _append(into["peer_drops_total"], _FULL["peer_drops_total"], self._classes, by_class)
        name = "peer_disconnects_total"
        for reason in peer.disconnects:
            if reason not in self._reasons:  # newer than the table: reasons are constants of the code
                self._reasons[reason] = Labels({**base, "reason": reason})
        _append(into[name], _FULL[name], self._reasons, peer.disconnects)
        if isinstance(peer, PeerStatus) and peer.connections:
            into["peer_info"].append(_sample(_FULL["peer_info"], self._info_labels(peer), 1))

    def _info_labels(self, peer: PeerStatus) -> Labels:
        info = _info_of(peer)
        if info != self._info:
            self._info = info
            values = ((value or "").encode("utf-8", "replace").decode() for value in info)
            names = ROWS["peer_info"].labels[2:]
            self._labels = Labels({**self._base, **dict(zip(names, values, strict=True))})
        return self._labels


def _info_of(peer: PeerStatus) -> tuple[str | None, ...]:
    return (
        peer.cipher,
        peer.tls_version,
        peer.key_group,
        peer.wrap,
        peer.transport,
        peer.peer_version,
        peer.platform,
    )


def extend_families(families: Families, series: Mapping[str, list[Sample]]) -> None:
    """Add the collected samples of all peers to the scrape."""
    for name, samples in series.items():
        families.extend(name, samples)


def _sample(name: str, labels: Labels, value: float) -> Sample:
    """A Sample made without its Python constructor, which would take a third of a scrape."""
    return _new(Sample, (name, labels, value, None, None, None))


def _append(
    samples: list[Sample], name: str, labels: Mapping[Any, Labels], numbers: Mapping[Any, float]
) -> None:
    get = numbers.get
    samples.extend([_sample(name, label, get(key, 0)) for key, label in labels.items()])
