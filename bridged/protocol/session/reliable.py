"""Delivers control packets in order over a lossy path, with one pair of windows for each key id.

Source: docs/protocol/control.md#3.
Pure: no sockets, no clock, no randomness; callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bridged.errors import LocalProtocolError
from bridged.protocol.packets.packet import Opcode

SEND_WINDOW: Final = 6
RECEIVE_WINDOW: Final = 12
TLS_TIMEOUT_DEFAULT: Final = 2.0
FAST_RETRANSMIT_ACKS: Final = 3
RECENT_ACKS: Final = 8
_PENDING_ACKS_MAX: Final = 32


class WindowFull(LocalProtocolError):
    """`push` without room; ask `has_room` first."""

    def __init__(self) -> None:
        super().__init__(f"{SEND_WINDOW} control packets are already outstanding", "window_full")


@dataclass(frozen=True, slots=True)
class OutgoingPacket:
    """A control packet to send now. Each transmission gets new acks and a new wrap."""

    message_id: int
    opcode: Opcode
    payload: bytes


@dataclass(frozen=True, slots=True)
class ReceivedPacket:
    """A control packet from the peer, delivered in order."""

    message_id: int
    opcode: Opcode
    payload: bytes


@dataclass(slots=True)
class _Pending:
    packet: OutgoingPacket
    next_send: float
    backoff: float
    transmissions: int = 0
    first_sent: float = 0.0
    later_acks: int = 0


class SendWindow:
    """Control packets sent and not yet acknowledged, oldest first.

    Holds at most SEND_WINDOW packets. The first retransmission follows after `tls_timeout` seconds, each
    further one after twice the time. It never gives up; the key state does. `first_message_id` is 1 if a
    stateless answer has used 0 (control.md#4-2).
    """

    def __init__(self, *, tls_timeout: float = TLS_TIMEOUT_DEFAULT, first_message_id: int = 0) -> None:
        self._tls_timeout = tls_timeout
        self._pending: dict[int, _Pending] = {}  # in order of message ids
        self.next_message_id = first_message_id
        self.retransmissions = 0
        self.acknowledged = 0
        self.last_rtt: float | None = None
        """Seconds from sending to acknowledgement, for the last packet that was sent only once."""

    @property
    def has_room(self) -> bool:
        oldest = next(iter(self._pending), self.next_message_id)
        return self.next_message_id - oldest < SEND_WINDOW

    @property
    def is_empty(self) -> bool:
        """Everything pushed was acknowledged."""
        return not self._pending

    @property
    def oldest_message_id(self) -> int | None:
        """Lowest id not yet acknowledged."""
        return next(iter(self._pending), None)

    def push(self, opcode: Opcode, payload: bytes, now: float) -> int:
        """Queue a packet to be sent at once. Returns its message id.

        Raises:
            WindowFull: no room.
            LocalProtocolError: the opcode takes no message id.
        """
        if not opcode.has_message_id:
            raise LocalProtocolError(f"{opcode.name} is not delivered reliably")
        if not self.has_room:
            raise WindowFull
        message_id = self.next_message_id
        self.next_message_id += 1
        packet = OutgoingPacket(message_id, opcode, payload)
        self._pending[message_id] = _Pending(packet, now, self._tls_timeout)
        return message_id

    def acknowledge(self, ids: Iterable[int], now: float) -> None:
        """Take an ack block. Repeated and unknown ids have no effect (control.md#3-2).

        An unacknowledged packet is due at once after three acks for later ones.
        """
        for message_id in ids:
            acked = self._pending.pop(message_id, None)
            if acked is None:
                continue
            self.acknowledged += 1
            if acked.transmissions == 1:
                self.last_rtt = max(0.0, now - acked.first_sent)
            for pending in self._pending.values():
                if pending.packet.message_id > message_id or not pending.transmissions:
                    continue
                pending.later_acks += 1
                if pending.later_acks >= FAST_RETRANSMIT_ACKS:
                    pending.later_acks = 0
                    pending.next_send = now

    def due(self, now: float) -> list[OutgoingPacket]:
        """The packets to send now, lowest id first. Marks them as sent and doubles their timers."""
        packets: list[OutgoingPacket] = []
        for pending in self._pending.values():
            if pending.next_send > now:
                continue
            if pending.transmissions:
                self.retransmissions += 1
            else:
                pending.first_sent = now
            pending.transmissions += 1
            pending.next_send = now + pending.backoff
            pending.backoff *= 2
            packets.append(pending.packet)
        return packets

    def send_now(self, now: float) -> None:
        """Make everything pending due at once, with fresh timers."""
        for pending in self._pending.values():
            pending.next_send = now
            pending.backoff = self._tls_timeout

    def hasten(self, at: float) -> None:
        """Make everything pending due at `at` or sooner. Timers go on doubling."""
        for pending in self._pending.values():
            pending.next_send = min(pending.next_send, at)

    def next_timeout(self) -> float | None:
        """When the next packet is due; None if nothing is pending."""
        return min((pending.next_send for pending in self._pending.values()), default=None)

    def clear(self) -> None:
        """Drop everything pending."""
        self._pending.clear()


class ReceiveVerdict(Enum):
    """What `ReceiveWindow.receive` did with a packet."""

    STORED = "stored"
    """New: it is buffered, and will be acknowledged and delivered in order."""
    DUPLICATE = "duplicate"
    """Received before: it is acknowledged again, but not delivered again."""
    OUTSIDE = "outside"
    """Too far ahead: dropped without acknowledgement."""


class ReceiveWindow:
    """Packets of the peer that wait for earlier ones, and the acks that they still need.

    Buffers at most RECEIVE_WINDOW packets. `first_message_id` is 1 after a stateless answer.
    """

    def __init__(self, first_message_id: int = 0) -> None:
        self.next_message_id = first_message_id
        self._buffered: dict[int, ReceivedPacket] = {}
        self._new_acks: dict[int, None] = {}  # an ordered set
        self._recent_acks: list[int] = []  # newest first

    @property
    def has_new_acks(self) -> bool:
        """An ack waits to be sent for the first time, or again after a duplicate."""
        return bool(self._new_acks)

    def receive(self, message_id: int, opcode: Opcode, payload: bytes) -> ReceiveVerdict:
        """Take a packet whose wrap, session ids and key id are valid."""
        if message_id >= self.next_message_id + RECEIVE_WINDOW:
            return ReceiveVerdict.OUTSIDE
        self._owe(message_id)
        if message_id < self.next_message_id or message_id in self._buffered:
            return ReceiveVerdict.DUPLICATE
        self._buffered[message_id] = ReceivedPacket(message_id, opcode, payload)
        return ReceiveVerdict.STORED

    def pop(self) -> ReceivedPacket | None:
        """The next packet in order; None while it is missing."""
        packet = self._buffered.pop(self.next_message_id, None)
        if packet is not None:
            self.next_message_id += 1
        return packet

    def take_acks(self, limit: int) -> tuple[int, ...]:
        """Up to `limit` ids for an ack block: new ones first, then the latest ones once more."""
        new = list(self._new_acks)[:limit]
        for message_id in new:
            del self._new_acks[message_id]
        older = [message_id for message_id in self._recent_acks if message_id not in new]
        self._recent_acks = (new + older)[:RECENT_ACKS]
        return tuple(self._recent_acks[:limit])

    def _owe(self, message_id: int) -> None:
        self._new_acks[message_id] = None
        if len(self._new_acks) > _PENDING_ACKS_MAX:
            # Only duplicates can get here. The peer repeats what it still wants acknowledged.
            del self._new_acks[next(iter(self._new_acks))]
