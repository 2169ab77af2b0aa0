"""Forwarding database of one tunnel: which station is behind which peer, or behind the TAP.

Source: IEEE 802.1D-2004, 7.8 and 7.9; docs/protocol/data.md#6-1, says where OpenVPN differs.
Pure: callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bridged.units import MonotonicSeconds, PeerHandle, Seconds

MOVES_REMEMBERED: Final = 64
SWEEP_STATIONS: Final = 4096

Port = PeerHandle | None
"""A peer, or None for the TAP."""


@dataclass(slots=True)
class Station:
    """One learned address; `heard` is the moment of its last frame."""

    port: Port
    heard: float


@dataclass(frozen=True, slots=True)
class StationMove:
    """An address that was heard behind another port than before."""

    address: bytes
    previous: Port
    current: Port


class Fdb:
    """Learned addresses (6 octets each), their ports and ages.

    Holds at most `capacity` addresses, at most half of them behind one port, and at most
    `addresses_per_peer` behind one peer. Where there is no room a new station goes unlearned: whoever
    invents addresses, on the LAN or behind a peer, must not cut off others. `version` changes whenever
    an answer of `find` may have changed for another reason than age.
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
        """Addresses that one port can fill, of those that nobody had before."""
        self.addresses_per_peer = addresses_per_peer
        self.ageing = ageing
        self.move_hold = move_hold
        self.version = 0
        self.changes = {"learned": 0, "aged": 0, "moved": 0, "flushed": 0, "refused": 0}
        self.moves: deque[StationMove] = deque(maxlen=MOVES_REMEMBERED)
        """The latest moves, oldest first; whoever reports them takes them out."""
        self._stations: dict[bytes, Station] = {}
        self._counts: dict[Port, int] = {}
        self._unswept: list[bytes] = []

    def __len__(self) -> int:
        return len(self._stations)

    def count(self, port: Port) -> int:
        """Addresses behind one port, those not yet swept out included."""
        return self._counts.get(port, 0)

    def learn(self, address: bytes, port: Port, now: MonotonicSeconds) -> str | None:
        """Take note of a frame's source address; None where the frame may go on, else the drop reason.

        `source_multicast` and `reserved_address` (all zero): no station has such an address.
        `loop_guard`: it was heard from a peer less than `move_hold` ago, and now from the TAP: our own
        frame, reflected. `mac_limit`: the peer has too many. Where there is no room the frame goes on, and
        its station stays unknown.
        """
        station = self._stations.get(address)
        if station is not None and now - station.heard <= self.ageing:
            if station.port == port:
                station.heard = now
                return None
            return self._move(address, station, port, now)
        if address[0] & 1:
            return "source_multicast"
        if not any(address):
            return "reserved_address"
        if station is not None:
            self._forget(address, station, "aged")
        return self._add(address, port, now)

    def find(self, address: bytes, now: MonotonicSeconds) -> Station | None:
        """The station, unless it is unknown or has aged."""
        station = self._stations.get(address)
        if station is None or now - station.heard > self.ageing:
            return None
        return station

    def flush(self, port: Port) -> int:
        """Forget what was learned behind a port; how many addresses that were."""
        if not self.count(port):
            return 0
        gone = [(address, station) for address, station in self._stations.items() if station.port == port]
        for address, station in gone:
            self._forget(address, station, "flushed")
        return len(gone)

    def sweep(self, now: MonotonicSeconds) -> int:
        """Forget aged addresses; how many. Looks at SWEEP_STATIONS at most: call it again and again."""
        if not self._unswept:
            self._unswept = list(self._stations)
        part, self._unswept = self._unswept[-SWEEP_STATIONS:], self._unswept[:-SWEEP_STATIONS]
        aged = 0
        for address in part:
            station = self._stations.get(address)
            if station is not None and now - station.heard > self.ageing:
                self._forget(address, station, "aged")
                aged += 1
        return aged

    def stations(self, now: MonotonicSeconds) -> Iterator[tuple[bytes, Port, Seconds]]:
        """Address, port and age of each station that has not aged."""
        for address, station in list(self._stations.items()):
            age = now - station.heard
            if age <= self.ageing:
                yield address, station.port, Seconds(max(0.0, age))

    def _add(self, address: bytes, port: Port, now: MonotonicSeconds) -> str | None:
        if port is not None and self._counts.get(port, 0) >= self.addresses_per_peer:
            self.changes["refused"] += 1
            return "mac_limit"
        if len(self._stations) >= self.capacity or self._counts.get(port, 0) >= self.share:
            self.changes["refused"] += 1
            return None
        self._stations[address] = Station(port, now)
        self._counts[port] = self._counts.get(port, 0) + 1
        self.changes["learned"] += 1
        self.version += 1
        return None

    def _move(self, address: bytes, station: Station, port: Port, now: MonotonicSeconds) -> str | None:
        if port is None and now - station.heard < self.move_hold:
            return "loop_guard"
        if port is not None and self._counts.get(port, 0) >= self.addresses_per_peer:
            self.changes["refused"] += 1
            return "mac_limit"
        self.moves.append(StationMove(address, station.port, port))
        self._uncount(station.port)
        self._counts[port] = self._counts.get(port, 0) + 1
        station.port = port
        station.heard = now
        self.changes["moved"] += 1
        self.version += 1
        return None

    def _forget(self, address: bytes, station: Station, change: str) -> None:
        del self._stations[address]
        self._uncount(station.port)
        self.changes[change] += 1
        self.version += 1

    def _uncount(self, port: Port) -> None:
        left = self._counts[port] - 1
        if left:
            self._counts[port] = left
        else:
            del self._counts[port]
