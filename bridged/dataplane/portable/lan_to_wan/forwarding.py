"""Frames from the TAP: which of them may pass, and to which peers they go.

Source: docs/protocol/data.md#5-1. Works on batches: consecutive frames with the same addresses (a run) share
one verdict, and frames to one peer share one sealing loop. Called with the loop's gate held.
"""

from __future__ import annotations

from collections.abc import Callable

from bridged.dataplane.portable.headers.mss import MssFitter, may_be_syn
from bridged.dataplane.portable.headers.priority import Reader
from bridged.dataplane.portable.headers.runs import runs_of
from bridged.dataplane.portable.lan_to_wan.batch_sealer import BatchSealer
from bridged.dataplane.portable.lan_to_wan.peer_batches import PeerBatcher
from bridged.dataplane.portable.lan_to_wan.priority import urgent_first
from bridged.dataplane.portable.lan_to_wan.too_big import SMALL_OCTETS, TooBig
from bridged.dataplane.portable.policy.from_lan import FromLan


class Forwarding:
    """Forwards what was read from the TAP.

    `dscp_of` None: no frame is urgent; `too_big` None: no frame is too large. `write` takes answers into the
    LAN.
    """

    def __init__(
        self,
        policy: FromLan,
        batches: PeerBatcher,
        sealer: BatchSealer,
        mss: MssFitter,
        dscp_of: Reader | None,
        too_big: TooBig | None,
        write: Callable[[bytes], None],
    ) -> None:
        self._policy = policy
        self._batches = batches
        self._sealer = sealer
        self._mss = mss
        self._dscp_of = dscp_of
        self._too_big = too_big
        self._write = write

    def forward(self, frames: list[bytes], now: float) -> None:
        """Fit, judge, seal and send the frames of one batch of reads (one frame or more)."""
        self._mss.fit(frames)
        if self._dscp_of is not None and len(frames) > 1:
            frames = urgent_first(frames, self._dscp_of)
        for addresses, run in runs_of(frames):
            admitted = self._policy.admitted(addresses, run)
            verdict = self._policy.verdict(addresses, admitted, now) if admitted else None
            if verdict is None:
                continue
            is_only = len(verdict.peers) == 1
            for peer in verdict.peers:
                fitted = admitted
                if self._too_big is not None:
                    # Where several peers may have the station, nobody knows whose path counts.
                    fitted = self._too_big.fitted(peer, admitted, now, self._write if is_only else None)
                if fitted is frames and is_only:
                    # Most batches are of one flow: there is nothing to gather.
                    self._sealer.send(peer, [(verdict.kind, fitted)], now)
                    return
                if fitted:
                    self._batches.add(peer, verdict.kind, fitted)
        self._batches.flush(now)

    def forward_one(self, frame: bytes, now: float) -> None:
        """`forward` for a lone frame, in fewer steps if its verdict is remembered and nothing is special."""
        if self._dscp_of is None or not self._dscp_of(frame):
            verdict = self._policy.remembered(frame, now)
            if (
                verdict is not None
                and verdict.only is not None
                and not (self._mss.limit and may_be_syn(frame))
                and (self._too_big is None or len(frame) <= SMALL_OCTETS)
                and self._sealer.send_one(verdict.only, verdict.kind, frame, now)
            ):
                return
        self.forward([frame], now)
