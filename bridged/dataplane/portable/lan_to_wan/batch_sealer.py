"""Seals frames for one peer, sends the packets, and counts both.

Source: docs/protocol/data.md#2-1 and #3.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from bridged.dataplane.contract import KeyNearLimit
from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.headers.priority import Reader
from bridged.dataplane.portable.lan_to_wan.priority import stretches
from bridged.dataplane.portable.tables.keys import KeySlot
from bridged.dataplane.portable.tables.peers import Peer
from bridged.dataplane.portable.transport.framing import LONGEST_PACKET

OVERHEAD_OCTETS: Final = 128
"""What a packet has more than its frame, at most."""

Run = tuple[int, list[bytes]]
"""The kind of some frames (an index of `control.counters.KINDS`), and the frames."""


class BatchSealer:
    """Seals and sends. `tell` hears of keys near their limits; `dscp_of` None: outer packets have DSCP 0."""

    def __init__(
        self,
        drops: DropCounter,
        tell: Callable[[KeyNearLimit], None],
        dscp_of: Reader | None,
    ) -> None:
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
        if peer.path.carrier.is_stream:
            runs = self._writable(peer, slot, runs)
        frames = runs[0][1] if len(runs) == 1 else [frame for _, run in runs for frame in run]
        if peer.path.carrier.is_stream:
            frames = self._fitting(peer, frames)
        sealed = self._seal_and_send(peer, slot, frames, now)
        if sealed < len(frames):
            self._drops.count("transmit", "key_expired", len(frames) - sealed, peer.traffic.drops)
        for kind, run in runs:
            part = run if sealed >= len(run) else run[:sealed]
            sealed -= len(part)
            peer.traffic.count_sent(kind, len(part), sum(map(len, part)))

    def send_one(self, peer: Peer, kind: int, frame: bytes, now: float) -> bool:
        """`send` for one frame of DSCP 0; False, and nothing is done, if key or path need a look first."""
        slot = peer.sealing
        path = peer.path
        if (
            slot is None
            or not peer.is_plain
            or path.carrier.is_stream
            or (packet := slot.seal_one(frame)) is None
        ):
            return False
        peer.sent_at = now
        traffic = peer.traffic
        traffic.sent_frames[kind] += 1
        traffic.sent_bytes[kind] += len(frame)
        path.carrier.send_one(packet, path)
        return True

    def send_payload(self, peer: Peer, payload: bytes, now: float) -> None:
        """Seal and send one ping or OCC message; nothing happens while the peer has no key in use."""
        slot = peer.sealing
        if slot is not None and peer.path.carrier.fitting([payload], OVERHEAD_OCTETS):
            self._seal_and_send(peer, slot, [payload], now)

    def _writable(self, peer: Peer, slot: KeySlot, runs: list[Run]) -> list[Run]:
        """The runs without frames whose packets are longer than a stream can say."""
        longest = slot.payload_room(LONGEST_PACKET) - peer.framing_octets
        kept = [(kind, [frame for frame in run if len(frame) <= longest]) for kind, run in runs]
        missing = sum(len(run) for _, run in runs) - sum(len(run) for _, run in kept)
        if missing:
            self._drops.count("transmit", "tcp_too_long", missing, peer.traffic.drops)
        return kept

    def _fitting(self, peer: Peer, frames: list[bytes]) -> list[bytes]:
        """The frames that the peer's stream has room for: none may be left out after it got its packet id."""
        count = peer.path.carrier.fitting(frames, OVERHEAD_OCTETS)
        if count == len(frames):
            return frames
        self._drops.count("transmit", "tcp_send_full", len(frames) - count, peer.traffic.drops)
        return frames[:count]

    def _seal_and_send(self, peer: Peer, slot: KeySlot, payloads: Sequence[bytes], now: float) -> int:
        """Pack, seal and send; how many were sealed. For the others there were no packet ids left."""
        packed = None if peer.is_plain else [peer.packed(payload, slot) for payload in payloads]
        packets = slot.seal(payloads if packed is None else [part for parts in packed for part in parts])
        if not packets:
            return 0
        path = peer.path
        ends = range(1, len(packets) + 1) if packed is None else list(accumulate(map(len, packed)))
        sealed = bisect_right(ends, len(packets))
        if self._dscp_of is None:
            path.carrier.send(packets, path, now)
        else:
            first = at = 0
            for octet, count in stretches(payloads[:sealed], self._dscp_of):
                first += count
                end = ends[first - 1]
                path.carrier.send(packets[at:end], path, now, octet)
                at = end
        peer.sent_at = now
        near = peer.near_limit(slot)
        if near is not None:
            self._tell(near)
        return sealed
