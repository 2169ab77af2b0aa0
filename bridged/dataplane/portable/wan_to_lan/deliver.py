"""Frames that peers sent: which of them may pass, and whether they go to the TAP or to other peers.

Source: docs/protocol/data.md#6-1. Called with the loop's gate held.
"""

from __future__ import annotations

from functools import partial

from bridged.dataplane.portable.headers.mss import MssFitter, may_be_syn
from bridged.dataplane.portable.lan_to_wan.peer_batches import PeerBatcher
from bridged.dataplane.portable.lan_to_wan.too_big import TooBig
from bridged.dataplane.portable.policy.from_peer import FromPeer
from bridged.dataplane.portable.tables.peers import Peer


class Delivery:
    """Forwards opened frames: `to_tap` collects what the loop writes, `batches` what goes to other peers.

    `too_big` None: no frame is too large.
    """

    def __init__(
        self, policy: FromPeer, batches: PeerBatcher, mss: MssFitter, too_big: TooBig | None
    ) -> None:
        self._policy = policy
        self._batches = batches
        self._mss = mss
        self._too_big = too_big
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
            fitted = admitted
            if self._too_big is not None:
                is_known = len(verdict.peers) == 1 and not verdict.to_tap
                tell = partial(self._answer, peer, verdict.kind) if is_known else None
                fitted = self._too_big.fitted(other, admitted, now, tell)
            if fitted:
                self._batches.add(other, verdict.kind, fitted)

    def _answer(self, peer: Peer, kind: int, answer: bytes) -> None:
        """Send a peer what one of its stations is answered."""
        self._batches.add(peer, kind, [answer])

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
