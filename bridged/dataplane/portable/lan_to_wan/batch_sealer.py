"""Seals frames for one peer, sends the packets, and counts both.

Source: docs/protocol/data.md#2-1 and #3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bridged.dataplane.contract import KeyNearLimit
from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.headers.priority import Reader
from bridged.dataplane.portable.lan_to_wan.priority import stretches
from bridged.dataplane.portable.tables.keys import KeySlot
from bridged.dataplane.portable.tables.peers import Peer
from bridged.dataplane.portable.transport.seam import Transport

Run = tuple[int, list[bytes]]
"""The kind of some frames (an index of `control.counters.KINDS`), and the frames."""


class BatchSealer:
    """Seals and sends. `tell` hears of keys near their limits; `dscp_of` None: outer packets have DSCP 0."""

    def __init__(
        self,
        transport: Transport,
        drops: DropCounter,
        tell: Callable[[KeyNearLimit], None],
        dscp_of: Reader | None,
    ) -> None:
        self._transport = transport
        self._drops = drops
        self._tell = tell
        self._dscp_of = dscp_of

    def send(self, peer: Peer, runs: list[Run], now: float) -> None:
        """Seal and send runs of frames, in order. What cannot be sealed is counted as dropped."""
        slot = peer.sealing
        if slot is None:
            reason = "no_key" if peer.has_sealed else "no_peer"
            self._drops.count("transmit", reason, sum(len(run) for _, run in runs), peer.traffic.drops)
            return
        frames = runs[0][1] if len(runs) == 1 else [frame for _, run in runs for frame in run]
        sealed = self._seal_and_send(peer, slot, frames, now)
        if sealed < len(frames):
            self._drops.count("transmit", "key_expired", len(frames) - sealed, peer.traffic.drops)
        for kind, run in runs:
            part = run if sealed >= len(run) else run[:sealed]
            sealed -= len(part)
            peer.traffic.count_sent(kind, len(part), sum(map(len, part)))

    def send_one(self, peer: Peer, kind: int, frame: bytes, now: float) -> bool:
        """`send` for one frame of DSCP 0; False, and nothing is done, if its key needs a look first."""
        slot = peer.sealing
        if slot is None or (packet := slot.seal_one(frame)) is None:
            return False
        peer.sent_at = now
        traffic = peer.traffic
        traffic.sent_frames[kind] += 1
        traffic.sent_bytes[kind] += len(frame)
        self._transport.send_one(packet, peer.path)
        return True

    def send_payload(self, peer: Peer, payload: bytes, now: float) -> None:
        """Seal and send one ping or OCC message; nothing happens while the peer has no key in use."""
        slot = peer.sealing
        if slot is not None:
            self._seal_and_send(peer, slot, [payload], now)

    def _seal_and_send(self, peer: Peer, slot: KeySlot, payloads: Sequence[bytes], now: float) -> int:
        """How many were sealed; for the others there were no packet ids left."""
        packets = slot.seal(payloads)
        if not packets:
            return 0
        if self._dscp_of is None:
            self._transport.send(packets, peer.path, now)
        else:
            at = 0
            for octet, count in stretches(payloads[: len(packets)], self._dscp_of):
                self._transport.send(packets[at : at + count], peer.path, now, octet)
                at += count
        peer.sent_at = now
        near = peer.near_limit(slot)
        if near is not None:
            self._tell(near)
        return len(packets)
