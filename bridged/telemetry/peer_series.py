"""The series of one peer. All but the numbers is written once and kept: a scrape of 1,000 peers stays short.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, Final

from bridged.catalogue.counters import DISCONNECT_REASONS, SEQUENCE_EVENTS
from bridged.runtime.snapshot import PeerStatus
from bridged.telemetry.exposition import labels_text, number_text
from bridged.telemetry.labels import DIRECTIONS, DROP_CLASSES, FRAME_KINDS, drop_class
from bridged.telemetry.metrics_table import ROWS
from bridged.telemetry.peer_totals import Sum, totals_of

SeriesKey = str | tuple[str, str]

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
_COUNTED: Final[tuple[tuple[str, str, tuple[SeriesKey, ...]], ...]] = (
    ("peer_frames_total", "frames", tuple(product(DIRECTIONS, FRAME_KINDS))),
    ("peer_bytes_total", "bytes", tuple(product(DIRECTIONS, FRAME_KINDS))),
    ("peer_wire_bytes_total", "wire_bytes", DIRECTIONS),
    ("peer_wire_datagrams_total", "wire_datagrams", DIRECTIONS),
    ("peer_sequence_total", "sequence", SEQUENCE_EVENTS),
)
"""Name, attribute of the peer's counters, keys of its numbers: the values of the row's further labels."""


class PeerSeries:
    """Writes the lines of one (tunnel, peer label)."""

    __slots__ = ("_counted", "_disconnects", "_drops", "_info", "_info_line", "_labels", "_single")

    def __init__(self, tunnel: str, label: str) -> None:
        self._labels = labels = {"tunnel": tunnel, "peer": label}
        text = labels_text(labels)
        self._single = {name: f"{_FULL[name]}{text} " for name, _ in (*_PLAIN, *_WHERE_KNOWN)}
        self._counted = tuple((name, what, _Lines(name, labels, keys)) for name, what, keys in _COUNTED)
        self._drops = _Lines("peer_drops_total", labels, tuple(product(DIRECTIONS, DROP_CLASSES)))
        self._disconnects = _Lines("peer_disconnects_total", labels, tuple(DISCONNECT_REASONS))
        self._info: tuple[str | None, ...] = ()
        self._info_line = ""

    def write(self, into: dict[str, list[str]], peer: PeerStatus | Sum) -> None:
        """Append the peer's lines to the lists in `into`, one list for each name of PEER_ROWS."""
        single = self._single
        for name, attribute in _PLAIN:
            into[name].append(f"{single[name]}{number_text(getattr(peer, attribute))}\n")
        for name, attribute in _WHERE_KNOWN:
            value = getattr(peer, attribute, None)
            if value is not None:
                into[name].append(f"{single[name]}{number_text(value)}\n")
        counters = totals_of(peer)
        for name, attribute, lines in self._counted:
            into[name].append(lines.text(getattr(counters, attribute)))
        by_class: dict[tuple[str, str], int] = {}
        for (direction, reason), number in counters.drops.items():
            key = (direction, drop_class(reason))
            by_class[key] = by_class.get(key, 0) + number
        into["peer_drops_total"].append(self._drops.text(by_class))
        # Newer than the table: reasons are constants of the code.
        if not all(reason in self._disconnects.keys for reason in peer.disconnects):
            reasons = dict.fromkeys((*DISCONNECT_REASONS, *peer.disconnects))
            self._disconnects = _Lines("peer_disconnects_total", self._labels, tuple(reasons))
        into["peer_disconnects_total"].append(self._disconnects.text(peer.disconnects))
        if isinstance(peer, PeerStatus) and peer.connections:
            into["peer_info"].append(self._line_of_info(peer))

    def _line_of_info(self, peer: PeerStatus) -> str:
        info = _info_of(peer)
        if info != self._info:
            self._info = info
            values = ((value or "").encode("utf-8", "replace").decode() for value in info)
            names = ROWS["peer_info"].labels[2:]
            labels = {**self._labels, **dict(zip(names, values, strict=True))}
            self._info_line = f"{_FULL['peer_info']}{labels_text(labels)} 1\n"
        return self._info_line


class _Lines:
    """Lines of one family for one peer, with a place for the number of each key."""

    __slots__ = ("_text", "keys")

    def __init__(self, name: str, labels: Mapping[str, str], keys: tuple[SeriesKey, ...]) -> None:
        self.keys = keys
        lines, names = [], ROWS[name].labels[len(labels) :]
        for key in keys:
            values = (key,) if isinstance(key, str) else key
            text = labels_text({**labels, **dict(zip(names, values, strict=True))})
            lines.append(f"{_FULL[name]}{text.replace('%', '%%')} %d\n")
        self._text = "".join(lines)

    def text(self, numbers: Mapping[Any, int]) -> str:
        """The lines with `numbers`, and 0 where there is none."""
        get = numbers.get
        return self._text % tuple([get(key, 0) for key in self.keys])


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
