"""Where a frame goes: the learning switch between the TAP and the peers.

Source: IEEE 802.1D-2004, 7.7; docs/protocol/data.md#6-1.
No I/O; callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridged.dataplane.contract import FdbEntry, Station, StationMoved
from bridged.dataplane.portable.control.counters import BROADCAST, MULTICAST, UNICAST, UNKNOWN_UNICAST
from bridged.dataplane.portable.tables.fdb import VLAN, Entry, Fdb, age_of
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.protocol.packets.occ import MAGIC_ADDRESSES
from bridged.units import MonotonicSeconds

TAP_VERDICTS: Final = 4096
PEER_VERDICTS: Final = 256
"""How many are remembered of one port."""
MOVES_TOLD_PER_SECOND: Final = 5.0

_BROADCAST: Final = b"\xff" * 6


class Verdict:
    """What becomes of frames from one port with the same two addresses.

    `drop` is the reason where they go nowhere by rule. A remembered verdict holds until the FDB's `version`
    changes, or the station `source` or `target` ages (None: a flood, or a static entry).
    """

    __slots__ = (
        "drop",
        "kind",
        "only",
        "only_to_tap",
        "peers",
        "source",
        "target",
        "to_tap",
        "until",
        "version",
    )

    source: Entry

    def __init__(
        self,
        kind: int,
        *,
        to_tap: bool = False,
        peers: tuple[Peer, ...] = (),
        drop: str | None = None,
        target: Entry | None = None,
    ) -> None:
        self.kind = kind
        self.to_tap = to_tap
        self.peers = peers
        self.drop = drop
        # A static entry does not age: the FDB's version says when it changes.
        self.target = None if target is not None and target.is_static else target
        self.only = peers[0] if len(peers) == 1 and not to_tap else None
        self.only_to_tap = to_tap and not peers
        self.until = 0.0
        self.version = -1


class Switch:
    """Decides for runs of frames, and remembers verdicts while the FDB and the peers stay as they are.

    `tell` hears of stations that moved.
    """

    def __init__(
        self,
        fdb: Fdb,
        table: PeerTable,
        tell: Callable[[StationMoved], None],
        *,
        forward_between_peers: bool,
    ) -> None:
        self._tell = tell
        self._fdb = fdb
        self._table = table
        self._forward_between_peers = forward_between_peers
        self.tap_verdicts: dict[bytes, Verdict] = {}
        self._tell_tokens = MOVES_TOLD_PER_SECOND
        self._told_at = 0.0

    def verdict(self, ingress: Peer | None, addresses: bytes, now: float) -> Verdict:
        """Learn the source and decide. `addresses` are the first 12 octets of the frames.

        `ingress` None: they came from the TAP.
        """
        verdicts = self.tap_verdicts if ingress is None else ingress.verdicts
        known = self.remembered(verdicts, addresses, now)
        if known is not None:
            return known
        verdict, source_station = self._decide(ingress, addresses, MonotonicSeconds(now))
        # Where nothing was learned, the next frame may be judged otherwise. What may be housekeeping is
        # looked at each time: the short way knows frames by their verdicts.
        if source_station is not None and addresses not in MAGIC_ADDRESSES:
            verdict.source = source_station
            verdict.version = self._fdb.version
            heard = source_station.heard if verdict.target is None else verdict.target.heard
            verdict.until = min(source_station.heard, heard) + self._fdb.ageing
            if len(verdicts) >= (TAP_VERDICTS if ingress is None else PEER_VERDICTS):
                verdicts.clear()
            verdicts[addresses] = verdict
        return verdict

    def remembered(self, verdicts: dict[bytes, Verdict], addresses: bytes, now: float) -> Verdict | None:
        """A verdict of before that still holds; the source counts as heard then."""
        known = verdicts.get(addresses)
        if known is None or known.version != self._fdb.version:
            return None
        source, target = known.source, known.target
        aged = now - self._fdb.ageing
        if source.heard < aged or (target is not None and target.heard < aged):
            return None
        source.heard = now
        known.until = min(source.heard, source.heard if target is None else target.heard) + self._fdb.ageing
        return known

    def forget_verdicts(self) -> None:
        """Decide anew: the set of peers has changed."""
        self._fdb.version += 1
        self.tap_verdicts.clear()

    def entries(self, now: float) -> list[FdbEntry]:
        """The FDB as the control plane reads it."""
        return [
            FdbEntry(station, entry.port, age_of(entry, MonotonicSeconds(now)), entry.is_static)
            for station, entry in self._fdb.entries(MonotonicSeconds(now))
        ]

    def _decide(
        self, ingress: Peer | None, addresses: bytes, now: MonotonicSeconds
    ) -> tuple[Verdict, Entry | None]:
        """The verdict, and the source's station if it is known now."""
        destination = addresses[:6]
        port = ingress.handle if ingress is not None else None
        if destination == _BROADCAST:
            kind = BROADCAST
        elif destination[0] & 1:
            kind = MULTICAST
        else:
            kind = UNKNOWN_UNICAST
        source = Station(VLAN, addresses[6:12])
        drop = self._fdb.learn(source, port, now)
        if self._fdb.moves:
            self._tell_moves(now)
        if drop is not None:
            return Verdict(kind, drop=drop), None
        target = self._fdb.find(Station(VLAN, destination), now) if kind == UNKNOWN_UNICAST else None
        verdict = self._flooded(ingress, kind) if target is None else self._forwarded(ingress, target)
        return verdict, self._fdb.find(source, now)

    def _flooded(self, ingress: Peer | None, kind: int) -> Verdict:
        everyone = self._table.by_handle.values()
        if ingress is None:
            # Without peers there is nowhere to go at all.
            return Verdict(kind, peers=tuple(everyone), drop=None if everyone else "no_peer")
        others = (
            tuple(peer for peer in everyone if peer is not ingress) if self._forward_between_peers else ()
        )
        return Verdict(kind, to_tap=True, peers=others)

    def _forwarded(self, ingress: Peer | None, target: Entry) -> Verdict:
        if target.port is None:
            return Verdict(UNICAST, to_tap=ingress is not None, target=target)
        peer = self._table.by_handle.get(target.port)
        if peer is None or peer is ingress:
            # Behind the port it came from: it has been there already.
            return Verdict(UNICAST, target=target)
        if ingress is not None and not self._forward_between_peers:
            # As OpenVPN without client-to-client: the kernel's bridge decides.
            return Verdict(UNICAST, to_tap=True, target=target)
        return Verdict(UNICAST, peers=(peer,), target=target)

    def _tell_moves(self, now: float) -> None:
        """Beyond MOVES_TOLD_PER_SECOND moves are only counted: a loop must not flood the log."""
        self._tell_tokens = min(
            MOVES_TOLD_PER_SECOND, self._tell_tokens + (now - self._told_at) * MOVES_TOLD_PER_SECOND
        )
        self._told_at = now
        while self._fdb.moves:
            move = self._fdb.moves.popleft()
            if self._tell_tokens >= 1.0:
                self._tell_tokens -= 1.0
                self._tell(StationMoved(move.station, move.previous, move.current))
