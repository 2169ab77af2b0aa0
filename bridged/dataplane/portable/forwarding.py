"""The way of frames in both directions: TAP to wire, wire to TAP, and peer to peer.

Source: bridged/dataplane/contract.py; docs/protocol/data.md#2-5, #5-1, #6-3.
Works on batches: runs of frames with the same addresses share one verdict, frames to one peer share one
sealing loop and, as far as their sizes allow, one system call. Called with the loop's gate held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from bridged.dataplane.contract import (
    OCC_OCTETS,
    Direction,
    KeyNearLimit,
    OccReceived,
    PeerFloated,
    SessionUnknown,
)
from bridged.dataplane.portable.control.answers import Answers
from bridged.dataplane.portable.control.counters import Drops, count_drop
from bridged.dataplane.portable.control.events import EventQueue
from bridged.dataplane.portable.headers.mss import clamp_mss
from bridged.dataplane.portable.headers.priority import Reader, stretches, urgent_first
from bridged.dataplane.portable.tables.keys import LEAST_FRAME_OCTETS, KeySlot
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.tables.switch import Switch
from bridged.dataplane.portable.transport.addresses import SockAddress, to_endpoint
from bridged.dataplane.portable.transport.udp import Path, Received, Wire
from bridged.protocol.packets.occ import MAGIC_ADDRESSES, PING, begins_as_housekeeping, is_occ
from bridged.protocol.packets.unknown_session import is_notice
from bridged.units import KeyId

_V2: Final = 9
_V1: Final = 6
_V2_HEADER_OCTETS: Final = 4
_SYN: Final = 2
_FIRST_4: Final = itemgetter(slice(4))
_FIRST_12: Final = itemgetter(slice(12))


class Forwarding:
    """Frames in flight of one data plane; `to_tap` collects what `take_for_tap` hands out."""

    def __init__(
        self,
        table: PeerTable,
        switch: Switch,
        wire: Wire,
        events: EventQueue,
        mss_limit: int,
        dscp_of: Reader | None,
    ) -> None:
        self._table = table
        self._switch = switch
        self._wire = wire
        self._events = events
        self.answers = Answers(events.control, wire.send_to)
        self.mss_limit = mss_limit
        self._dscp_of = dscp_of
        self.carries: Callable[[int, float], bool] = lambda octets, now: True
        """Whether the TAP takes a frame of so many octets."""
        self.to_tap: list[bytes] = []
        self.to_peers: dict[Peer, list[tuple[int, list[bytes]]]] = {}
        self.drops: Drops = {}
        self.mtu_events: dict[str, int] = {"mss_clamped": 0}

    def drop(self, direction: Direction, reason: str, frames: int = 1, peer: Peer | None = None) -> None:
        """Count lost frames or packets."""
        if frames:
            tables = (self.drops,) if peer is None else (self.drops, peer.traffic.drops)
            count_drop(tables, direction, reason, frames)

    # --- from the TAP

    def from_tap(self, frames: list[bytes], now: float) -> None:
        """Switch, seal and send what was read from the TAP."""
        if self.mss_limit:
            self._clamp(frames)
        if self._dscp_of is not None and len(frames) > 1:
            frames = urgent_first(frames, self._dscp_of)
        for addresses, run in _runs(frames):
            if min(map(len, run)) < LEAST_FRAME_OCTETS:
                run = self._kept(
                    run, lambda frame: len(frame) >= LEAST_FRAME_OCTETS, "transmit", "short_frame"
                )
            if addresses in MAGIC_ADDRESSES:
                run = self._kept(
                    run, lambda frame: not begins_as_housekeeping(frame), "transmit", "housekeeping_magic"
                )
            if not run:
                continue
            verdict = self._switch.verdict(None, addresses, now)
            if verdict.drop is not None:
                self.drop("transmit", verdict.drop, len(run))
                continue
            if run is frames and len(verdict.peers) == 1:
                # Most batches are of one flow: nothing to queue.
                self._send_frames(verdict.peers[0], [(verdict.kind, run)], now)
                return
            for peer in verdict.peers:
                self._queue(peer, verdict.kind, run)
        self.send_queued(now)

    # --- from the wire

    def from_wire(self, received: Received, now: float) -> None:
        """Open and switch the datagrams of one read; frames for the TAP wait for `take_for_tap`."""
        data, size, _, _ = received
        if len(data) <= size:
            self._packets([data], received, now)
            return
        packets = [data[at : at + size] for at in range(0, len(data), size)]
        if len(set(map(_FIRST_4, packets))) == 1:
            self._packets(packets, received, now)
            return
        at = 0
        while at < len(packets):
            header = packets[at][:_V2_HEADER_OCTETS]
            end = at + 1
            while end < len(packets) and packets[end].startswith(header):
                end += 1
            self._packets(packets[at:end], received, now)
            at = end

    def opened(self, peer: Peer, slot: KeySlot, frame: bytes, now: float) -> None:
        """A frame that the short way opened and could not forward."""
        self._check_limit(peer, slot)
        self._frames(peer, [frame], now)

    def take_for_tap(self) -> list[bytes]:
        """Frames to write to the TAP, in order."""
        frames, self.to_tap = self.to_tap, []
        return frames

    def send_queued(self, now: float) -> None:
        """Seal and send what waits for peers."""
        if not self.to_peers:
            return
        queued, self.to_peers = self.to_peers, {}
        for peer, runs in queued.items():
            self._send_frames(peer, runs, now)

    def send_payload(self, peer: Peer, payload: bytes, now: float) -> None:
        """Seal and send one ping or OCC message."""
        slot = peer.sealing
        if slot is not None:
            self._send(peer, slot, [payload], now)

    # --- sending

    def _queue(self, peer: Peer, kind: int, run: list[bytes]) -> None:
        waiting = self.to_peers.get(peer)
        if waiting is None:
            self.to_peers[peer] = [(kind, run)]
        else:
            waiting.append((kind, run))

    def _send_frames(self, peer: Peer, runs: list[tuple[int, list[bytes]]], now: float) -> None:
        slot = peer.sealing
        if slot is None:
            reason = "no_key" if peer.has_sealed else "no_peer"
            self.drop("transmit", reason, sum(len(run) for _, run in runs), peer)
            return
        traffic = peer.traffic
        frames = runs[0][1] if len(runs) == 1 else [frame for _, run in runs for frame in run]
        sealed = self._send(peer, slot, frames, now)
        if sealed < len(frames):
            self.drop("transmit", "key_expired", len(frames) - sealed, peer)
        for kind, run in runs:
            part = run if sealed >= len(run) else run[:sealed]
            sealed -= len(part)
            traffic.sent_frames[kind] += len(part)
            traffic.sent_bytes[kind] += sum(map(len, part))

    def _send(self, peer: Peer, slot: KeySlot, payloads: Sequence[bytes], now: float) -> int:
        """How many were sealed; the others ran out of packet ids."""
        packets = slot.seal(payloads)
        if not packets:
            return 0
        if self._dscp_of is None:
            self._wire.send(packets, peer.path, now)
        else:
            at = 0
            for octet, count in stretches(payloads[: len(packets)], self._dscp_of):
                self._wire.send(packets[at : at + count], peer.path, now, octet)
                at += count
        peer.sent_at = now
        self._check_limit(peer, slot)
        return len(packets)

    def _clamp(self, frames: list[bytes]) -> None:
        limit = self.mss_limit
        for index, frame in enumerate(frames):
            if may_be_syn(frame):
                changed = clamp_mss(frame, limit)
                if changed is not None:
                    frames[index] = changed
                    self.mtu_events["mss_clamped"] += 1

    # --- receiving

    def _packets(self, packets: list[bytes], received: Received, now: float) -> None:
        """Packets of one source that begin with the same 4 octets."""
        first = packets[0]
        if not first:
            self.drop("receive", "short_packet", len(packets))
            return
        opcode = first[0] >> 3
        if opcode == _V2:
            known = self._table.receivers.get(first[:_V2_HEADER_OCTETS])
            if known is None:
                known = self._find_v2(packets, received[2])
        elif opcode == _V1:
            known = self._slot(self._table.by_address.get(received[2]), packets, received[2])
        else:
            self._control(packets, received, now)
            return
        is_open = known is not None and self._data(
            known[0], known[1], packets, received, now, is_v2=opcode == _V2
        )
        if not is_open and received[2] not in self._table.by_address:
            # Perhaps another peer's id, from before this end began.
            self._wire.remember_pin(received)
            self.answers.notify(first, to_endpoint(received[2]), now)

    def _find_v2(self, packets: list[bytes], source: SockAddress) -> tuple[Peer, KeySlot] | None:
        header = packets[0][:_V2_HEADER_OCTETS]
        if len(header) < _V2_HEADER_OCTETS:
            self.drop("receive", "short_packet", len(packets))
            return None
        return self._slot(self._table.find(header, source), packets, source)

    def _slot(
        self, peer: Peer | None, packets: list[bytes], source: SockAddress
    ) -> tuple[Peer, KeySlot] | None:
        if peer is None:
            self.drop("receive", "unknown_peer_id", len(packets))
            return None
        slot = peer.slots.get(KeyId(packets[0][0] & 7))
        if slot is None and is_notice(packets[0]) and source == peer.path.address:
            self._tell(SessionUnknown(peer.handle))
            return None
        if slot is None:
            self.drop("receive", "unknown_key_id", len(packets), peer)
            return None
        return peer, slot

    def _data(
        self, peer: Peer, slot: KeySlot, packets: list[bytes], received: Received, now: float, *, is_v2: bool
    ) -> bool:
        """Open and switch; False where nothing could be opened."""
        _, _, source, pin = received

        def drop(reason: str) -> None:
            self.drop("receive", reason, 1, peer)

        frames = slot.open(packets, drop, is_v2=is_v2)
        fresh = slot.accepted
        self._check_limit(peer, slot)
        if not fresh:
            return False
        if source != peer.path.address:
            if not self._float(peer, received):
                self.drop("receive", "float_refused", len(frames), peer)
                return True
        elif pin != peer.path.pin and pin is not None:
            peer.path.pin = pin
        peer.path.awaited = self._wire.awaited(pin)
        if is_v2:
            self._table.remember(packets[0][:_V2_HEADER_OCTETS], peer, slot)
        peer.seen_at = now
        if frames:
            self._frames(peer, frames, now)
        return True

    def _float(self, peer: Peer, received: Received) -> bool:
        """Follow an authentic packet to its source; False where a peer of another name is there."""
        _, _, source, pin = received
        holder = self._table.by_address.get(source)
        if holder is not None and holder is not peer and holder.name != peer.name:
            return False
        previous = peer.endpoint
        endpoint = to_endpoint(source)
        self._table.move(peer, source, endpoint, Path(source, pin))
        if endpoint != previous:
            self._tell(PeerFloated(peer.handle, endpoint, previous))
        return True

    def _frames(self, peer: Peer, frames: list[bytes], now: float) -> None:
        traffic = peer.traffic
        if self.mss_limit:
            self._clamp(frames)
        for addresses, run in _runs(frames):
            if addresses in MAGIC_ADDRESSES:
                run = self._without_housekeeping(peer, run, now)
            if run and not self.carries(max(map(len, run)), now):
                run = self._kept(
                    run, lambda frame: self.carries(len(frame), now), "receive", "long_frame", peer
                )
            if not run:
                continue
            verdict = self._switch.verdict(peer, addresses, now)
            traffic.received_frames[verdict.kind] += len(run)
            traffic.received_bytes[verdict.kind] += sum(map(len, run))
            if verdict.drop is not None:
                self.drop("receive", verdict.drop, len(run), peer)
                continue
            if verdict.to_tap:
                self.to_tap += run
            for other in verdict.peers:
                self._queue(other, verdict.kind, run)

    def _kept(
        self,
        run: list[bytes],
        is_good: Callable[[bytes], bool],
        direction: Direction,
        reason: str,
        peer: Peer | None = None,
    ) -> list[bytes]:
        """Those of a run that are good; the others are counted."""
        kept = [frame for frame in run if is_good(frame)]
        self.drop(direction, reason, len(run) - len(kept), peer)
        return kept

    def _without_housekeeping(self, peer: Peer, run: list[bytes], now: float) -> list[bytes]:
        frames = []
        for payload in run:
            if is_occ(payload):
                self._tell_occ(peer, payload, now)
            elif payload != PING:
                frames.append(payload)
        return frames

    def _tell_occ(self, peer: Peer, payload: bytes, now: float) -> None:
        """Hand up an OCC message, if it may be one and its peer does not send too many."""
        if len(payload) > OCC_OCTETS:
            self.drop("receive", "occ_length", 1, peer)
        elif not peer.occ.take(now):
            self.drop("receive", "occ_rate", 1, peer)
        else:
            self._tell(OccReceived(peer.handle, payload))

    def _control(self, packets: list[bytes], received: Received, now: float) -> None:
        self._wire.remember_pin(received)
        holder = self._table.by_address.get(received[2])
        source = to_endpoint(received[2])
        for packet in packets:
            if holder is not None:
                reason = self._events.put_control(packet, source, now, holder.handle)
            else:
                reason = self._events.told(self.answers.receive(packet, source, now))
            if reason is not None:
                self.drop("receive", reason)

    def _check_limit(self, peer: Peer, slot: KeySlot) -> None:
        trigger = slot.limit_reached()
        if trigger is not None:
            self._tell(KeyNearLimit(peer.handle, slot.key_id, trigger))

    def _tell(self, event: PeerFloated | SessionUnknown | OccReceived | KeyNearLimit) -> None:
        if not self._events.put(event):
            self.drop("receive", "event_queue_full")


def _runs(frames: list[bytes]) -> list[tuple[bytes, list[bytes]]]:
    """Stretches of frames with the same first 12 octets, in order."""
    addresses = frames[0][:12]
    if len(frames) == 1 or len(set(map(_FIRST_12, frames))) == 1:
        return [(addresses, frames)]
    runs = []
    start = 0
    for index, frame in enumerate(frames):
        if not frame.startswith(addresses):
            runs.append((addresses, frames[start:index]))
            start = index
            addresses = frame[:12]
    runs.append((addresses, frames[start:]))
    return runs


def may_be_syn(frame: bytes) -> bool:
    """A quick look: false for most frames that cannot be SYN segments."""
    if len(frame) < 54:
        return False
    ethertype = frame[12]
    if ethertype == 0x08 and frame[14] == 0x45:
        return frame[23] == 6 and frame[47] & _SYN != 0
    if ethertype == 0x86 and frame[13] == 0xDD:
        return frame[20] == 6 and len(frame) > 67 and frame[67] & _SYN != 0
    return ethertype in (0x08, 0x81, 0x88)
