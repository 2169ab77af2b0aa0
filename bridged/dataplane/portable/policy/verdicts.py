"""What becomes of frames from one port with the same two addresses: judged once, and remembered.

Both directions share this. The key is (port, addresses); a verdict holds while the FDB's version, the set of
peers and the ages of the stations involved allow it.
No I/O; callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

from typing import Final

from bridged.dataplane.portable.policy.link_layer import LinkLayer
from bridged.dataplane.portable.tables.destination import Destination, flood_kind
from bridged.dataplane.portable.tables.fdb import Entry
from bridged.dataplane.portable.tables.peers import Peer
from bridged.protocol.packets.occ import MAGIC_ADDRESSES
from bridged.units import MonotonicSeconds

TAP_VERDICTS: Final = 4096
PEER_VERDICTS: Final = 256
"""How many are remembered for one port."""


class Verdict:
    """The judgement on a run of frames: a drop reason, or where they go.

    `kind` is an index of `control.counters.KINDS`. `only`: the one peer that they go to; `only_to_tap`: they
    go nowhere else. `source` and `target` (None: a flood or a static station) are the entries that it rests
    on, `version` the FDB's; none of them ages before `until` (monotonic seconds).
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

    def __init__(self, destination: Destination) -> None:
        self.kind = destination.kind
        self.to_tap = destination.to_tap
        self.peers = peers = destination.peers
        self.drop = destination.drop
        target = destination.target
        # A static station does not age: the FDB's version says when it changes.
        self.target = None if target is not None and target.is_static else target
        self.only = peers[0] if len(peers) == 1 and not self.to_tap else None
        self.only_to_tap = self.to_tap and not peers
        self.version = -1
        self.until = 0.0

    def oldest(self) -> float:
        """When the entry was heard that ages first (monotonic seconds)."""
        heard = self.source.heard
        return heard if self.target is None else min(heard, self.target.heard)


class Verdicts:
    """Judges runs of frames for both policy stages, and remembers the judgement."""

    def __init__(self, link_layer: LinkLayer) -> None:
        self._link_layer = link_layer
        self._fdb = link_layer.fdb
        self._ageing = link_layer.fdb.ageing
        self.of_tap: dict[bytes, Verdict] = {}
        """By addresses: for frames from the TAP. `Peer.verdicts` has those for frames from a peer."""

    def judge(self, ingress: Peer | None, addresses: bytes, now: float) -> Verdict:
        """Learn the source and decide. `addresses`: the first 12 bytes; `ingress` None: from the TAP."""
        known = self.of_tap if ingress is None else ingress.verdicts
        verdict = self.remembered(known, addresses, now)
        if verdict is not None:
            return verdict
        moment = MonotonicSeconds(now)
        drop = self._link_layer.learn(ingress, addresses, moment)
        if drop is not None:
            return Verdict(Destination(flood_kind(addresses), drop=drop))
        verdict = Verdict(self._link_layer.destination(ingress, addresses, moment))
        source = self._link_layer.source(addresses, moment)
        # Without an entry the next frame may be judged otherwise. What may be housekeeping is looked at each
        # time.
        if source is not None and addresses not in MAGIC_ADDRESSES:
            verdict.source = source
            verdict.version = self._fdb.version
            verdict.until = verdict.oldest() + self._ageing
            if len(known) >= (TAP_VERDICTS if ingress is None else PEER_VERDICTS):
                known.clear()
            known[addresses] = verdict
        return verdict

    def remembered(self, known: dict[bytes, Verdict], addresses: bytes, now: float) -> Verdict | None:
        """An earlier verdict that still holds; its source counts as heard now."""
        verdict = known.get(addresses)
        if verdict is None or verdict.version != self._fdb.version:
            return None
        if verdict.until < now:
            verdict.until = verdict.oldest() + self._ageing
            if verdict.until < now:
                return None
        verdict.source.heard = now
        return verdict

    def forget(self) -> None:
        """Judge everything again: the set of peers has changed."""
        self._fdb.version += 1
        self.of_tap.clear()
