"""Opens the data packets of one peer: authenticity, replay, float, pings and OCC messages.

Source: docs/protocol/data.md#2-1, #3, #5-1 and #5-2. Called with the loop's gate held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bridged.dataplane.contract import (
    OCC_OCTETS,
    FramingRefused,
    KeyNearLimit,
    OccReceived,
    PeerFloated,
)
from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.headers.runs import runs_of
from bridged.dataplane.portable.policy.from_peer import FromPeer
from bridged.dataplane.portable.tables.keys import LEAST_FRAME_OCTETS, KeySlot
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.transport.seam import Path, Received
from bridged.dataplane.portable.wan_to_lan.deliver import Delivery
from bridged.protocol.packets.fragments import FragmentError
from bridged.protocol.packets.framing import UnframedError
from bridged.protocol.packets.occ import MAGIC_ADDRESSES, PING, is_occ
from bridged.socket_addresses import to_endpoint


class Opener:
    """Opens packets, and hands the frames on. `tell` hears of floats, OCC messages and worn keys."""

    def __init__(
        self,
        table: PeerTable,
        policy: FromPeer,
        delivery: Delivery,
        drops: DropCounter,
        tell: Callable[[PeerFloated | OccReceived | KeyNearLimit | FramingRefused], None],
    ) -> None:
        self._table = table
        self._policy = policy
        self._delivery = delivery
        self._drops = drops
        self._tell = tell

    def open(
        self, peer: Peer, slot: KeySlot, packets: list[bytes], received: Received, now: float, *, is_v2: bool
    ) -> bool:
        """Open and forward packets of one key and one source; False if none of them could be opened."""

        def drop(reason: str) -> None:
            self._drops.count("receive", reason, 1, peer.traffic.drops)

        payloads = slot.open(packets, drop, is_v2=is_v2)
        fresh = slot.accepted
        near = peer.near_limit(slot)
        if near is not None:
            self._tell(near)
        if not fresh:
            return False
        if not self._follow(peer, received):
            self._drops.count("receive", "float_refused", len(payloads), peer.traffic.drops)
            return True
        if is_v2:
            self._table.remember(packets[0][:4], peer, slot)
        peer.seen_at = now
        if not peer.is_plain:
            payloads = list(self._unpacked(peer, payloads, now))
        if payloads:
            self.forward(peer, payloads, now)
        return True

    def forward(self, peer: Peer, payloads: list[bytes], now: float) -> None:
        """Hand on the frames among opened payloads."""
        for addresses, run in runs_of(payloads):
            frames = self._without_housekeeping(peer, run, now) if addresses in MAGIC_ADDRESSES else run
            if frames:
                self._delivery.deliver(peer, addresses, frames, now)

    def _follow(self, peer: Peer, received: Received) -> bool:
        """Answer to where an authentic packet came from; False if a peer of another name is there."""
        _, _, source, pinned_source = received
        path = peer.path
        if source == path.address:
            if pinned_source is not None and pinned_source != path.pinned_source:
                path.pinned_source = pinned_source
            return True
        if path.carrier.is_stream or len(source) == 3:
            # A connection stands for its peer: neither moves to the other.
            return False
        holder = self._table.by_address.get(source)
        if holder is not None and holder is not peer and holder.name != peer.name:
            return False
        previous = peer.endpoint
        endpoint = to_endpoint(source)
        self._table.move(peer, source, endpoint, Path(source, path.carrier, pinned_source))
        if endpoint != previous:
            self._tell(PeerFloated(peer.handle, endpoint, previous))
        return True

    def _unpacked(self, peer: Peer, payloads: Iterable[bytes], now: float) -> Iterator[bytes]:
        """What is inside of payloads, joined where the peer cut it; the rest is counted as dropped."""
        reassembly = peer.reassembly
        for payload in payloads:
            reason = "short_frame"
            try:
                inner: bytes | None = payload
                if reassembly is not None:
                    inner = reassembly.take(payload, now)
                if inner is None:
                    continue
                if peer.unwrap is not None:
                    inner = peer.unwrap(inner)
                if len(inner) >= LEAST_FRAME_OCTETS:
                    yield inner
                    continue
            except FragmentError:
                reason = "bad_fragment"
            except UnframedError as error:
                reason = "compressed" if error.is_compressed else "bad_framing"
                if not peer.is_framing_told:
                    peer.is_framing_told = True
                    self._tell(FramingRefused(peer.handle, error.is_compressed))
            self._drops.count("receive", reason, 1, peer.traffic.drops)
        if reassembly is not None and reassembly.lost:
            self._drops.count("receive", "fragment_incomplete", reassembly.lost, peer.traffic.drops)
            reassembly.lost = 0

    def _without_housekeeping(self, peer: Peer, payloads: list[bytes], now: float) -> list[bytes]:
        """The frames among the payloads; pings end here, and OCC messages go to the control plane."""
        frames = []
        for payload in payloads:
            if is_occ(payload):
                if self._policy.admits_occ(peer, payload, now):
                    left_out = max(0, len(payload) - OCC_OCTETS)
                    self._tell(OccReceived(peer.handle, payload[:OCC_OCTETS], left_out))
            elif payload != PING:
                frames.append(payload)
        return frames
