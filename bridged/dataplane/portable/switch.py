"""Where a frame goes: the learning switch between the TAP and the peers.

Source: IEEE 802.1D-2004, 7.7; docs/protocol/data.md, section 6.1.
No I/O; callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import MacAddress
from bridged.dataplane.contract import FdbEntry, StationMoved
from bridged.dataplane.portable.counters import BROADCAST, MULTICAST, UNICAST, UNKNOWN_UNICAST
from bridged.dataplane.portable.peers import Peer, PeerTable
from bridged.switching.fdb import Fdb, Station
from bridged.units import MonotonicSeconds, PeerHandle

VERDICTS_REMEMBERED: Final = 8192
MOVES_TOLD_PER_SECOND: Final = 5.0

_BROADCAST: Final = b"\xff" * 6


class Verdict:
    """What becomes of frames from one port with the same two addresses.

    `drop` is the reason where they go nowhere by rule. `source` and `target` are the stations that
    the verdict rests on: it holds until one of them ages.
    """

    __slots__ = ("drop", "kind", "peers", "source", "target", "to_tap")

    def __init__(
        self,
        kind: int,
        *,
        to_tap: bool = False,
        peers: tuple[Peer, ...] = (),
        drop: str | None = None,
        source: Station | None = None,
        target: Station | None = None,
    ) -> None:
        self.kind = kind
        self.to_tap = to_tap
        self.peers = peers
        self.drop = drop
        self.source = source
        self.target = target


class Switch:
    """Decides for runs of frames, and remembers verdicts while the FDB and the peers stay as they are."""

    def __init__(self, fdb: Fdb, table: PeerTable, *, forward_between_peers: bool) -> None:
        self._fdb = fdb
        self._table = table
        self._forward_between_peers = forward_between_peers
        self._verdicts: dict[tuple[PeerHandle | None, bytes], Verdict] = {}
        self._version = (-1, -1)
        self._tell_tokens = MOVES_TOLD_PER_SECOND
        self._told_at = 0.0

    def verdict(self, ingress: Peer | None, addresses: bytes, now: float) -> Verdict:
        """Learn the source and decide. `addresses` are the first 12 octets of the frames.

        `ingress` None: they came from the TAP.
        """
        fdb = self._fdb
        version = (fdb.version, self._table.version)
        if version != self._version or len(self._verdicts) > VERDICTS_REMEMBERED:
            self._verdicts.clear()
            self._version = version
        key = (ingress.handle if ingress is not None else None, addresses)
        known = self._verdicts.get(key)
        if known is not None:
            source, target = known.source, known.target
            if (source is None or now - source.heard <= fdb.ageing) and (
                target is None or now - target.heard <= fdb.ageing
            ):
                if source is not None:
                    source.heard = now
                return known
        verdict = self._decide(ingress, addresses, MonotonicSeconds(now))
        # A verdict that let nothing be learned may be another one for the next frame.
        if verdict.source is not None:
            if (fdb.version, self._table.version) != self._version:
                self._verdicts.clear()
                self._version = (fdb.version, self._table.version)
            self._verdicts[key] = verdict
        return verdict

    def moves(self, now: float) -> list[StationMoved]:
        """Station moves to tell of; beyond MOVES_TOLD_PER_SECOND they are only counted."""
        fdb = self._fdb
        if not fdb.moves:
            return []
        self._tell_tokens = min(
            MOVES_TOLD_PER_SECOND, self._tell_tokens + (now - self._told_at) * MOVES_TOLD_PER_SECOND
        )
        self._told_at = now
        told = []
        while fdb.moves:
            move = fdb.moves.popleft()
            if self._tell_tokens >= 1.0:
                self._tell_tokens -= 1.0
                told.append(StationMoved(MacAddress(move.address), move.previous, move.current))
        return told

    def entries(self, now: float) -> list[FdbEntry]:
        """The FDB as the control plane reads it."""
        return [
            FdbEntry(MacAddress(address), port, age)
            for address, port, age in self._fdb.stations(MonotonicSeconds(now))
        ]

    def _decide(self, ingress: Peer | None, addresses: bytes, now: MonotonicSeconds) -> Verdict:
        destination = addresses[:6]
        source_address = addresses[6:12]
        port = ingress.handle if ingress is not None else None
        if destination == _BROADCAST:
            kind = BROADCAST
        elif destination[0] & 1:
            kind = MULTICAST
        else:
            kind = UNKNOWN_UNICAST
        drop = self._fdb.learn(source_address, port, now)
        if drop is not None:
            return Verdict(kind, drop=drop)
        source = self._fdb.find(source_address, now)
        target = self._fdb.find(destination, now) if kind == UNKNOWN_UNICAST else None
        if target is None:
            return self._flood(ingress, kind, source)
        return self._forward(ingress, source, target)

    def _flood(self, ingress: Peer | None, kind: int, source: Station | None) -> Verdict:
        if ingress is None:
            peers = tuple(self._table.by_handle.values())
            # A table without peers is nowhere to go at all.
            return Verdict(kind, peers=peers, drop=None if peers else "no_peer", source=source)
        peers = ()
        if self._forward_between_peers:
            peers = tuple(peer for peer in self._table.by_handle.values() if peer is not ingress)
        return Verdict(kind, to_tap=True, peers=peers, source=source)

    def _forward(self, ingress: Peer | None, source: Station | None, target: Station) -> Verdict:
        if target.port is None:
            return Verdict(UNICAST, to_tap=ingress is not None, source=source, target=target)
        peer = self._table.by_handle.get(target.port)
        if peer is None or peer is ingress:
            # Behind the port it came from: it has been there already.
            return Verdict(UNICAST, source=source, target=target)
        if ingress is not None and not self._forward_between_peers:
            # As OpenVPN without client-to-client: the kernel's bridge decides.
            return Verdict(UNICAST, to_tap=True, source=source, target=target)
        return Verdict(UNICAST, peers=(peer,), source=source, target=target)
