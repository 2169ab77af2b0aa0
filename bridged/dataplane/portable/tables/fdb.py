"""Forwarding database of one tunnel: which station is behind which peer, or behind the TAP.

Source: IEEE 802.1D-2004, 7.8 and 7.9; docs/protocol/data.md#6-1 says where OpenVPN differs.
Pure: callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from bridged.dataplane.contract import (
    STATION_EVENTS_KEPT,
    Station,
    StationEvent,
    StationEventKind,
    StationEvents,
)
from bridged.errors import DataplaneError
from bridged.units import MonotonicSeconds, PeerHandle, Seconds

MOVES_REMEMBERED: Final = 64
SWEEP_STATIONS: Final = 4096

VLAN: Final = 0
"""Every frame is in this VLAN: the switch does not look at tags yet."""

Port = PeerHandle | None
"""A peer, or None for the TAP."""


@dataclass(slots=True)
class Entry:
    """Where a station is; `heard` is the moment of its last frame. A static entry neither ages nor moves."""

    port: Port
    heard: float
    is_static: bool = False


@dataclass(frozen=True, slots=True)
class StationMove:
    """A station that was heard behind another port than before."""

    station: Station
    previous: Port
    current: Port


class Fdb:
    """Stations, their ports and ages.

    Holds at most `capacity` stations. At most half of them are learned behind one port, and at most
    `addresses_per_peer` behind one peer. Without room a new station stays unknown: invented addresses, on the
    LAN or behind a peer, must not cut off others. `version` changes whenever an answer of `find` may have
    changed for another reason than age.
    """

    def __init__(
        self,
        *,
        capacity: int,
        addresses_per_peer: int,
        ageing: Seconds,
        move_hold: Seconds,
    ) -> None:
        self.capacity = capacity
        self.share = -(-capacity // 2)
        """Stations that can be learned behind one port, of those that nobody had before."""
        self.addresses_per_peer = addresses_per_peer
        self.ageing = ageing
        self.move_hold = move_hold
        self.version = 0
        self.changes = {"learned": 0, "aged": 0, "moved": 0, "flushed": 0, "refused": 0}
        self.moves: deque[StationMove] = deque(maxlen=MOVES_REMEMBERED)
        """The latest moves, oldest first; the reader removes them."""
        self._entries: dict[Station, Entry] = {}
        self._counts: dict[Port, int] = {}
        self._unswept: list[Station] = []
        self._events: deque[StationEvent] = deque(maxlen=STATION_EVENTS_KEPT)
        self._events_ever = 0

    def __len__(self) -> int:
        return len(self._entries)

    def count(self, port: Port) -> int:
        """Stations behind one port, including aged ones that no sweep has removed yet."""
        return self._counts.get(port, 0)

    def learn(self, station: Station, port: Port, now: MonotonicSeconds) -> str | None:
        """Take note of a frame's source; None if the frame may pass, else the drop reason.

        `source_multicast` and `reserved_address` (all zero): no station has such an address.
        `loop_guard`: the TAP returned our own frame (a peer was heard with it less than `move_hold` ago), or
        the station is static elsewhere. `mac_limit`: the peer has too many stations. Without room the frame
        passes and its station stays unknown.
        """
        entry = self._entries.get(station)
        if entry is not None and (entry.is_static or now - entry.heard <= self.ageing):
            if entry.port == port:
                entry.heard = now
                return None
            return self._move(station, entry, port, now)
        if station.mac[0] & 1:
            return "source_multicast"
        if not any(station.mac):
            return "reserved_address"
        if entry is not None:
            self._forget(station, entry, "aged")
        return self._add(station, port, now)

    def find(self, station: Station, now: MonotonicSeconds) -> Entry | None:
        """Where the station is; None if it is unknown or has aged."""
        entry = self._entries.get(station)
        if entry is None or not (entry.is_static or now - entry.heard <= self.ageing):
            return None
        return entry

    def install(self, station: Station, port: Port, now: MonotonicSeconds, *, is_static: bool) -> bool:
        """Put a station behind a port, wherever it was before; False if there is no room for a new one."""
        entry = self._entries.get(station)
        if entry is None:
            if len(self._entries) >= self.capacity:
                return False
            self._put(station, Entry(port, now, is_static))
            return True
        if entry.port != port:
            self._relocate(station, entry, port)
        entry.heard, entry.is_static = now, is_static
        self.version += 1
        return True

    def remove(self, station: Station) -> None:
        """Forget a station; unknown ones are ignored."""
        entry = self._entries.get(station)
        if entry is not None:
            self._forget(station, entry, "flushed")

    def flush(self, port: Port) -> int:
        """Forget all stations behind a port, static ones too; returns how many."""
        if not self.count(port):
            return 0
        gone = [(station, entry) for station, entry in self._entries.items() if entry.port == port]
        for station, entry in gone:
            self._forget(station, entry, "flushed")
        return len(gone)

    def sweep(self, now: MonotonicSeconds) -> int:
        """Forget aged stations; returns how many. Call it repeatedly: it looks at SWEEP_STATIONS at most."""
        if not self._unswept:
            self._unswept = list(self._entries)
        part, self._unswept = self._unswept[-SWEEP_STATIONS:], self._unswept[:-SWEEP_STATIONS]
        aged = 0
        for station in part:
            entry = self._entries.get(station)
            if entry is not None and not entry.is_static and now - entry.heard > self.ageing:
                self._forget(station, entry, "aged")
                aged += 1
        return aged

    def entries(self, now: MonotonicSeconds) -> Iterator[tuple[Station, Entry]]:
        """All stations that have not aged."""
        for station, entry in list(self._entries.items()):
            if entry.is_static or now - entry.heard <= self.ageing:
                yield station, entry

    def events(self, after: int) -> StationEvents:
        """See `DataPlane.station_events`."""
        oldest = self._events_ever - len(self._events)
        kept = islice(self._events, max(0, after - oldest), None)
        return StationEvents(tuple(kept), self._events_ever, max(0, oldest - after))

    def _add(self, station: Station, port: Port, now: MonotonicSeconds) -> str | None:
        if port is not None and self._counts.get(port, 0) >= self.addresses_per_peer:
            self.changes["refused"] += 1
            return "mac_limit"
        if len(self._entries) >= self.capacity or self._counts.get(port, 0) >= self.share:
            self.changes["refused"] += 1
            return None
        self._put(station, Entry(port, now))
        return None

    def _put(self, station: Station, entry: Entry) -> None:
        self._entries[station] = entry
        self._counts[entry.port] = self._counts.get(entry.port, 0) + 1
        self._changed("learned", "learned", station, entry.port)

    def _move(self, station: Station, entry: Entry, port: Port, now: MonotonicSeconds) -> str | None:
        if entry.is_static or (port is None and now - entry.heard < self.move_hold):
            return "loop_guard"
        if port is not None and self._counts.get(port, 0) >= self.addresses_per_peer:
            self.changes["refused"] += 1
            return "mac_limit"
        self.moves.append(StationMove(station, entry.port, port))
        self._relocate(station, entry, port)
        entry.heard = now
        return None

    def _relocate(self, station: Station, entry: Entry, port: Port) -> None:
        self._uncount(entry.port)
        self._counts[port] = self._counts.get(port, 0) + 1
        entry.port = port
        self._changed("moved", "moved", station, port)

    def _forget(self, station: Station, entry: Entry, change: str) -> None:
        del self._entries[station]
        self._uncount(entry.port)
        self._changed(change, "removed", station, entry.port)

    def _changed(self, change: str, kind: StationEventKind, station: Station, port: Port) -> None:
        self.changes[change] += 1
        self.version += 1
        self._events.append(StationEvent(kind, station, port))
        self._events_ever += 1

    def _uncount(self, port: Port) -> None:
        left = self._counts[port] - 1
        if left:
            self._counts[port] = left
        else:
            del self._counts[port]


def age_of(entry: Entry, now: MonotonicSeconds) -> Seconds:
    """Seconds since the station was heard; 0 for a static one."""
    return Seconds(0.0 if entry.is_static else max(0.0, now - entry.heard))


def check_station(station: Station) -> None:
    """Refuse what cannot be a station of this switch.

    Raises:
        DataplaneError: `bad_station`.
    """
    mac = station.mac
    if station.vlan != VLAN or len(mac) != 6 or mac[0] & 1 or not any(mac):
        raise DataplaneError("bad_station", f"{mac.hex(':')} in VLAN {station.vlan} cannot be a station here")
