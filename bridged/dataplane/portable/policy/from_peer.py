"""Policy for what peers send: every rule that can keep a frame from the LAN, or an OCC message from us.

Rules on single payloads: what the TAP carries, and the length and rate of OCC messages. Rules on runs of
frames with the same addresses are verdicts (guards of the FDB, destinations).
"""

from __future__ import annotations

from bridged.dataplane.contract import OCC_OCTETS
from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.policy.verdicts import Verdict, Verdicts
from bridged.dataplane.portable.tables.peers import Peer
from bridged.dataplane.portable.tap import Tap
from bridged.protocol.packets.occ import is_filled


class FromPeer:
    """The policy stage from the WAN to the LAN; what it refuses is counted, also at the peer."""

    def __init__(self, verdicts: Verdicts, drops: DropCounter, tap: Tap) -> None:
        self._verdicts = verdicts
        self._remembered = verdicts.remembered
        self._drops = drops
        self.tap = tap

    def admits_occ(self, peer: Peer, payload: bytes, now: float) -> bool:
        """Whether to hand up an OCC message."""
        if len(payload) > OCC_OCTETS and not is_filled(payload):
            reason = "occ_length"
        elif not peer.occ.take(now):
            reason = "occ_rate"
        else:
            return True
        self._drops.count("receive", reason, 1, peer.traffic.drops)
        return False

    def admitted(self, peer: Peer, run: list[bytes], now: float) -> list[bytes]:
        """The frames of a run that the TAP carries."""
        carries = self.tap.carries
        if carries(max(map(len, run)), now):
            return run
        kept = [frame for frame in run if carries(len(frame), now)]
        self._drops.count("receive", "long_frame", len(run) - len(kept), peer.traffic.drops)
        return kept

    def verdict(self, peer: Peer, addresses: bytes, run: list[bytes], now: float) -> Verdict:
        """What becomes of an admitted run; one with a drop reason is counted as dropped here."""
        verdict = self._verdicts.judge(peer, addresses, now)
        if verdict.drop is not None:
            self._drops.count("receive", verdict.drop, len(run), peer.traffic.drops)
        return verdict

    def remembered(self, peer: Peer, frame: bytes, now: float) -> Verdict | None:
        """An earlier verdict for a single frame; None: ask `admitted` and `verdict`."""
        if len(frame) > self.tap.largest_frame:
            return None
        return self._remembered(peer.verdicts, frame[:12], now)
