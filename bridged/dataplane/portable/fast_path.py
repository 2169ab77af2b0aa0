"""The short way of single packets in which nothing is unusual.

Source: docs/protocol/data.md#2-1; `forwarding` is the same for anything, to be read first.
Latency is made of single packets, and what Python takes for one is the number of steps. So this is written
without calls between objects, does only what the long way would do in the same case, and leaves every other
case to it: batches, other peers than the one awaited, packets out of order, frames that are flooded between
peers, SYN segments to be fitted. The contract suite holds both ways to the same rules. With the gate held.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag

from bridged.dataplane.portable.forwarding import Forwarding, may_be_syn
from bridged.dataplane.portable.headers.priority import Reader
from bridged.dataplane.portable.headers.vnet import NEEDS_CSUM
from bridged.dataplane.portable.tables.fdb import Fdb
from bridged.dataplane.portable.tables.keys import LEAST_FRAME_OCTETS
from bridged.dataplane.portable.tables.peers import PeerTable
from bridged.dataplane.portable.tables.switch import Switch
from bridged.dataplane.portable.tap_io import TapIo
from bridged.dataplane.portable.transport.udp import ANCILLARY_OCTETS, MAX_DATAGRAM_OCTETS, Received, Wire
from bridged.protocol.packets.data_packet import MAX_DATA_PACKET_ID, OVERHEAD_V2

_LEAST_PACKET: Final = OVERHEAD_V2 + LEAST_FRAME_OCTETS


class FastPath:
    """One packet from here to there; see the module."""

    __slots__ = ("_dscp_of", "_fdb", "_forwarding", "_receivers", "_tap_verdicts", "_wire", "mss_limit")

    def __init__(
        self,
        table: PeerTable,
        fdb: Fdb,
        switch: Switch,
        wire: Wire,
        forwarding: Forwarding,
        mss_limit: int,
        dscp_of: Reader | None,
    ) -> None:
        self._receivers = table.receivers
        self._fdb = fdb
        self._tap_verdicts = switch.tap_verdicts
        self._wire = wire
        self._forwarding = forwarding
        self.mss_limit = mss_limit
        self._dscp_of = dscp_of

    def from_wire(self, tap: TapIo, now: float) -> Received | None:
        """Read one datagram and write its frame to the TAP.

        What was read comes back if it has to go the long way; None if there is nothing left to do.
        """
        wire = self._wire
        try:
            data, ancillary, _, source = wire.recvmsg(MAX_DATAGRAM_OCTETS, ANCILLARY_OCTETS)
        except OSError as error:
            wire.failed(error)
            return None
        known = self._receivers.get(data[:4])
        if known is None:
            return wire.sorted(data, ancillary, source)
        peer, slot = known
        path = peer.path
        if (
            source != path.address
            or ancillary != path.awaited
            or int.from_bytes(data[4:8], "big") != slot.awaited
            or len(data) < _LEAST_PACKET
        ):
            return wire.sorted(data, ancillary, source)
        try:
            frame = slot.decrypt(data[4:8] + slot.open_iv, data[24:] + data[8:24], data[:8])
        except InvalidTag:
            return wire.sorted(data, ancillary, source)
        slot.awaited += 1
        slot.following += 1
        use = slot.use
        use.packets_received += 1
        use.octets_received += len(data)
        peer.seen_at = now
        wire.datagrams_per_receive.ones += 1
        verdict = peer.verdicts.get(frame[:12])
        if (
            verdict is None
            or not verdict.only_to_tap
            or verdict.version != self._fdb.version
            or verdict.until < now
            or use.packets_received >= use.due_received
            or len(frame) > tap.largest_frame
            or (self.mss_limit and may_be_syn(frame))
        ):
            self._forwarding.opened(peer, slot, frame, now)
            return None
        verdict.source.heard = now
        traffic = peer.traffic
        traffic.received_frames[verdict.kind] += 1
        traffic.received_bytes[verdict.kind] += len(frame)
        tap.frames_per_write.ones += 1
        try:
            os.write(tap.descriptor, tap.plain + frame)
        except OSError as error:
            tap.failed(tap.descriptor, error, 1)
        return None

    def from_tap(self, tap: TapIo, descriptor: int, now: float) -> list[bytes]:
        """Read one frame, seal and send it; frames come back that have to go the long way."""
        try:
            packet = os.read(descriptor, tap.room)
        except BlockingIOError:
            return []
        except OSError as error:
            tap.failed(descriptor, error, 0)
            return []
        header = tap.header
        if header:
            if not packet or packet[1] or packet[0] & NEEDS_CSUM:
                return tap.sorted([packet])
            frame = packet[header:]
        else:
            frame = packet
        verdict = self._tap_verdicts.get(frame[:12])
        if (
            verdict is None
            or verdict.only is None
            or verdict.version != self._fdb.version
            or verdict.until < now
            or len(frame) < LEAST_FRAME_OCTETS
            or len(packet) >= tap.room
            or (self.mss_limit and may_be_syn(frame))
            or (self._dscp_of is not None and self._dscp_of(frame))
        ):
            return tap.sorted([packet])
        peer = verdict.only
        slot = peer.sealing
        if slot is None or slot.next_id > MAX_DATA_PACKET_ID or slot.use.packets_sent >= slot.use.due_sent:
            return tap.sorted([packet])
        number = slot.next_id
        slot.next_id = number + 1
        identity = number.to_bytes(4, "big")
        additional = slot.additional + identity
        sealed = slot.encrypt(identity + slot.seal_iv, frame, additional)
        packet = slot.header + identity + sealed[-16:] + sealed[:-16]
        use = slot.use
        use.packets_sent += 1
        use.octets_sent += len(packet)
        verdict.source.heard = now
        peer.sent_at = now
        traffic = peer.traffic
        traffic.sent_frames[verdict.kind] += 1
        traffic.sent_bytes[verdict.kind] += len(frame)
        path = peer.path
        wire = self._wire
        try:
            if path.pin is None:
                wire.sendto(packet, path.address)
            else:
                wire.sendmsg((packet,), (path.pin,), 0, path.address)
        except OSError:
            wire.send_one(packet, path)  # waits for room, unpins, or counts the loss
        else:
            wire.segments_per_send.ones += 1
        return []
