"""A learning switch whose ports are the TAP and the peers.

Source: IEEE 802.1D-2004, 7.7; docs/protocol/data.md#6-1.
No I/O; callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridged.dataplane.contract import Station, StationMoved
from bridged.dataplane.portable.control.counters import UNICAST, UNKNOWN_UNICAST
from bridged.dataplane.portable.tables.destination import Destination, flood_kind
from bridged.dataplane.portable.tables.fdb import VLAN, Entry, Fdb
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.units import MonotonicSeconds

MOVES_REPORTED_PER_SECOND: Final = 5.0


class Switch:
    """The link layer of a bridged tunnel; see `LinkLayer`. `tell` hears of stations that moved.

    It reports MOVES_REPORTED_PER_SECOND: a loop must not flood the log. `Fdb.changes` counts all moves.
    """

    def __init__(
        self,
        fdb: Fdb,
        table: PeerTable,
        tell: Callable[[StationMoved], None],
        *,
        forward_between_peers: bool,
    ) -> None:
        self.fdb = fdb
        self._table = table
        self._tell = tell
        self._forward_between_peers = forward_between_peers
        self._reports_left = MOVES_REPORTED_PER_SECOND
        self._reported_at = 0.0

    def learn(self, ingress: Peer | None, addresses: bytes, now: MonotonicSeconds) -> str | None:
        port = ingress.handle if ingress is not None else None
        drop = self.fdb.learn(Station(VLAN, addresses[6:12]), port, now)
        if self.fdb.moves:
            self.report_moves(now)
        return drop

    def source(self, addresses: bytes, now: MonotonicSeconds) -> Entry | None:
        return self.fdb.find(Station(VLAN, addresses[6:12]), now)

    def destination(self, ingress: Peer | None, addresses: bytes, now: MonotonicSeconds) -> Destination:
        kind = flood_kind(addresses)
        target = self.fdb.find(Station(VLAN, addresses[:6]), now) if kind == UNKNOWN_UNICAST else None
        return self._flood(ingress, kind) if target is None else self._forward(ingress, target)

    def report_moves(self, now: float) -> None:
        """Tell of the moves since the last call, as far as the rate allows."""
        gained = (now - self._reported_at) * MOVES_REPORTED_PER_SECOND
        self._reports_left = min(MOVES_REPORTED_PER_SECOND, self._reports_left + gained)
        self._reported_at = now
        while self.fdb.moves:
            move = self.fdb.moves.popleft()
            if self._reports_left >= 1.0:
                self._reports_left -= 1.0
                self._tell(StationMoved(move.station, move.previous, move.current))

    def _flood(self, ingress: Peer | None, kind: int) -> Destination:
        everyone = self._table.by_handle.values()
        if ingress is None:
            return Destination(kind, peers=tuple(everyone), drop=None if everyone else "no_peer")
        if not self._forward_between_peers:
            return Destination(kind, to_tap=True)
        return Destination(kind, to_tap=True, peers=tuple(peer for peer in everyone if peer is not ingress))

    def _forward(self, ingress: Peer | None, target: Entry) -> Destination:
        if target.port is None:
            return Destination(UNICAST, to_tap=ingress is not None, target=target)
        peer = self._table.by_handle.get(target.port)
        if peer is None or peer is ingress:
            # The station is on the side that the frame came from.
            return Destination(UNICAST, target=target)
        if ingress is not None and not self._forward_between_peers:
            # As OpenVPN without client-to-client: the kernel's bridge decides.
            return Destination(UNICAST, to_tap=True, target=target)
        return Destination(UNICAST, peers=(peer,), target=target)
