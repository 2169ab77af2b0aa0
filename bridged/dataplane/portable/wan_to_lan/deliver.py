"""Frames that peers sent: which of them may pass, and whether they go to the TAP or to other peers.

Source: docs/protocol/data.md#6-1. Called with the loop's gate held.
"""

from __future__ import annotations

from bridged.dataplane.portable.headers.mss import MssFitter, may_be_syn
from bridged.dataplane.portable.lan_to_wan.peer_batches import PeerBatcher
from bridged.dataplane.portable.policy.from_peer import FromPeer
from bridged.dataplane.portable.tables.peers import Peer


class Delivery:
    """Forwards opened frames: `to_tap` collects what the loop writes, `batches` what goes to other peers."""

    def __init__(self, policy: FromPeer, batches: PeerBatcher, mss: MssFitter) -> None:
        self._policy = policy
        self._batches = batches
        self._mss = mss
        self.to_tap: list[bytes] = []

    def deliver(self, peer: Peer, addresses: bytes, run: list[bytes], now: float) -> None:
        """Fit, judge and hand on frames of one peer that all begin with `addresses` (12 bytes)."""
        self._mss.fit(run)
        admitted = self._policy.admitted(peer, run, now)
        if not admitted:
            return
        verdict = self._policy.verdict(peer, addresses, admitted, now)
        peer.traffic.count_received(verdict.kind, len(admitted), sum(map(len, admitted)))
        if verdict.to_tap:
            self.to_tap += admitted
        for other in verdict.peers:
            self._batches.add(other, verdict.kind, admitted)

    def goes_to_tap(self, peer: Peer, frame: bytes, now: float) -> bool:
        """Whether a lone frame goes to the TAP and nowhere else, by a remembered verdict; it is counted then.

        False: nothing is done, and `deliver` has to decide.
        """
        verdict = self._policy.remembered(peer, frame, now)
        if verdict is None or not verdict.only_to_tap or (self._mss.limit and may_be_syn(frame)):
            return False
        traffic = peer.traffic
        traffic.received_frames[verdict.kind] += 1
        traffic.received_bytes[verdict.kind] += len(frame)
        return True

    def take_for_tap(self) -> list[bytes]:
        """Frames to write to the TAP, in order."""
        frames, self.to_tap = self.to_tap, []
        return frames
