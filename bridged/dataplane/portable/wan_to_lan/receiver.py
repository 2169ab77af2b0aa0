"""Datagrams from the network: whose they are, by their first bytes and their source.

Source: docs/protocol/data.md#2-1, #2-5 and #6-3. Data packets go to `opener`; control packets to the control
plane, through its queue. Called with the loop's gate held.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from time import perf_counter
from typing import Final

from bridged.dataplane.contract import SessionUnknown
from bridged.dataplane.portable.control.answers import Answers
from bridged.dataplane.portable.control.counters import DropCounter
from bridged.dataplane.portable.control.events import EventQueue
from bridged.dataplane.portable.control.work_budget import WorkBudget
from bridged.dataplane.portable.tables.keys import KeySlot
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.transport.seam import Received, Transport
from bridged.dataplane.portable.wan_to_lan.deliver import Delivery
from bridged.dataplane.portable.wan_to_lan.opener import Opener
from bridged.protocol.packets.unknown_session import is_notice
from bridged.socket_addresses import to_endpoint
from bridged.units import KeyId

_V2: Final = 9
_V1: Final = 6
_RESETS: Final = (7, 10)
"""Opcodes of a client's first packet."""
_V2_HEADER_OCTETS: Final = 4
_FIRST_4: Final = itemgetter(slice(4))


class Receiver:
    """Finds peer and key of data packets, and queues or answers control packets."""

    def __init__(
        self,
        table: PeerTable,
        transport: Transport,
        opener: Opener,
        delivery: Delivery,
        events: EventQueue,
        answers: Answers,
        drops: DropCounter,
        tell: Callable[[SessionUnknown], None],
        *,
        is_static: bool,
    ) -> None:
        self._is_static = is_static
        self._table = table
        self._receivers = table.receivers
        self._transport = transport
        self._opener = opener
        self._delivery = delivery
        self._events = events
        self._answers = answers
        self._drops = drops
        self._tell = tell
        self._reset_work, self._stranger_work = WorkBudget(), WorkBudget()
        self.early: list[Received] = []
        """Packets whose key has come since; `take_early` deals with them."""

    def take_early(self, now: float) -> None:
        """Deal with packets that waited for their key."""
        early, self.early = self.early, []
        for received in early:
            self.take(received, now)

    def take(self, received: Received, now: float) -> None:
        """Deal with the datagrams of one read."""
        data, size, _, _ = received
        if self._is_static and data:
            self._take_static(
                [data[at : at + size] for at in range(0, len(data), max(1, size))], received, now
            )
            return
        if len(data) <= size:
            self._take_run([data], received, now)
            return
        packets = [data[at : at + size] for at in range(0, len(data), size)]
        if len(set(map(_FIRST_4, packets))) == 1:
            self._take_run(packets, received, now)
            return
        at = 0
        while at < len(packets):
            header = packets[at][:_V2_HEADER_OCTETS]
            end = at + 1
            while end < len(packets) and packets[end].startswith(header):
                end += 1
            self._take_run(packets[at:end], received, now)
            at = end

    def take_one(self, received: Received, now: float) -> bytes | None:
        """`take` for a lone read, in fewer steps where nothing is special.

        Returns a frame that goes to the TAP and nowhere else; what needed more steps waits in `deliver`.
        """
        packet, size, source, pinned_source = received
        known = self._receivers.get(packet[:_V2_HEADER_OCTETS])
        if known is not None:
            peer, slot = known
            path = peer.path
            if (
                source == path.address
                and pinned_source == path.pinned_source
                and len(packet) == size
                and peer.is_plain
            ):
                frame = slot.open_next(packet)
                if frame is not None:
                    peer.seen_at = now
                    if self._delivery.goes_to_tap(peer, frame, now):
                        return frame
                    self._opener.forward(peer, [frame], now)
                    return None
        self.take(received, now)
        return None

    def _take_run(self, packets: list[bytes], received: Received, now: float) -> None:
        """Packets of one source that begin with the same 4 bytes."""
        first, source = packets[0], received[2]
        if not first:
            self._drops.count("receive", "short_packet", len(packets))
            return
        opcode = first[0] >> 3
        if opcode == _V2:
            known = self._table.receivers.get(first[:_V2_HEADER_OCTETS])
            if known is None:
                known = self._find_v2(packets, received, now)
        elif opcode == _V1:
            known = self._find_key(self._table.by_address.get(source), packets, received, now)
        else:
            self._take_control(packets, received, now)
            return
        is_open = known is not None and self._opener.open(
            known[0], known[1], packets, received, now, is_v2=opcode == _V2
        )
        if not is_open and source not in self._table.by_address:
            # This end may have restarted: its peer does not know that its session is gone.
            self._transport.remember_source(received)
            self._answers.notify(first, to_endpoint(source), now)

    def _take_static(self, packets: list[bytes], received: Received, now: float) -> None:
        """Packets without an opcode: of the only peer, or of whoever may become it."""
        peer = next(iter(self._table.by_handle.values()), None)
        if peer is None:
            self._take_control(packets, received, now)
            return
        slot = peer.slots.get(KeyId(0))
        if slot is None:
            self._drops.count("receive", "unknown_key_id", len(packets), peer.traffic.drops)
            return
        self._opener.open(peer, slot, packets, received, now, is_v2=False)

    def _find_v2(self, packets: list[bytes], received: Received, now: float) -> tuple[Peer, KeySlot] | None:
        header = packets[0][:_V2_HEADER_OCTETS]
        if len(header) < _V2_HEADER_OCTETS:
            self._drops.count("receive", "short_packet", len(packets))
            return None
        return self._find_key(self._table.find(header, received[2]), packets, received, now)

    def _find_key(
        self, peer: Peer | None, packets: list[bytes], received: Received, now: float
    ) -> tuple[Peer, KeySlot] | None:
        if peer is None:
            self._drops.count("receive", "unknown_peer_id", len(packets))
            return None
        key_id = KeyId(packets[0][0] & 7)
        slot = peer.slots.get(key_id)
        if slot is not None:
            return peer, slot
        is_at_home = received[2] == peer.path.address
        if is_at_home and is_notice(packets[0]):
            self._tell(SessionUnknown(peer.handle))
        elif not (is_at_home and peer.early.expected == key_id and peer.early.hold(packets, received, now)):
            self._drops.count("receive", "unknown_key_id", len(packets), peer.traffic.drops)
        return None

    def _take_control(self, packets: list[bytes], received: Received, now: float) -> None:
        holder = self._table.by_address.get(received[2])
        if holder is None:
            self._take_of_stranger(packets, received, now)
            return
        self._transport.remember_source(received)
        source = to_endpoint(received[2])
        for packet in packets:
            refusal = self._events.put_control(packet, source, now, holder.handle)
            if refusal is not None:
                self._drops.count("receive", refusal)

    def _take_of_stranger(self, packets: list[bytes], received: Received, now: float) -> None:
        # Peers wait while strangers are dealt with. Whoever has got its answer waits for no resets of others.
        is_reset = packets[0][0] >> 3 in _RESETS
        budget = self._reset_work if is_reset else self._stranger_work
        if not budget.has_some(now):
            self._drops.count("receive", "handshake_rate" if is_reset else "source_rate", len(packets))
            return
        began = perf_counter()
        self._transport.remember_source(received)
        source = to_endpoint(received[2])
        for packet in packets:
            refusal = self._events.announce(self._answers.receive(packet, source, now))
            if refusal is not None:
                self._drops.count("receive", refusal)
        budget.spend(perf_counter() - began, len(packets))
