"""Frames on their way to peers, gathered by peer while a batch of reads is worked through.

Frames of the TAP and frames relayed between peers meet here.
"""

from __future__ import annotations

from bridged.dataplane.portable.lan_to_wan.batch_sealer import BatchSealer, Run
from bridged.dataplane.portable.tables.peers import Peer


class PeerBatcher:
    """Queues runs of frames for each peer until `flush` hands them to the sealer."""

    def __init__(self, sealer: BatchSealer) -> None:
        self._sealer = sealer
        self._waiting: dict[Peer, list[Run]] = {}

    def __len__(self) -> int:
        """Peers that have something waiting."""
        return len(self._waiting)

    def add(self, peer: Peer, kind: int, run: list[bytes]) -> None:
        """Queue a run of frames of one kind for a peer, in order."""
        waiting = self._waiting.get(peer)
        if waiting is None:
            self._waiting[peer] = [(kind, run)]
        else:
            waiting.append((kind, run))

    def flush(self, now: float) -> None:
        """Seal and send everything that waits."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        for peer, runs in waiting.items():
            self._sealer.send(peer, runs, now)
