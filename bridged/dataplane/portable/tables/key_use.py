"""How far a data key is used up, and when to ask for a new one.

Source: docs/protocol/data.md#3-1 and #3-3.
Pure: counts only.
"""

from __future__ import annotations

from typing import Final

from bridged.dataplane.contract import LimitTrigger
from bridged.protocol.packets.data_packet import MAX_DATA_PACKET_ID, RENEGOTIATE_PACKET_ID

AEAD_BLOCK_OCTETS: Final = 16
AES_GCM_BLOCKS: Final = 2**36 - 1
"""Blocks and packets of one direction under one AES-GCM key."""
AES_GCM_RENEGOTIATE: Final = AES_GCM_BLOCKS * 7 // 8
FAILED_TAGS_RENEGOTIATE: Final = 2**35
FAILED_TAGS_END: Final = 2**36


CHECK_PACKETS: Final = 1024
LARGEST_PACKET_OCTETS: Final = 65535


class KeyUse:
    """Counts of one key; `trigger` says once that it should be replaced.

    `octets_*` count whole packets. The configured limits (0: none) hold for both directions together.
    `is_due` is asked after every batch and costs little: it is true only when enough packets have passed for
    a limit to be possible.
    """

    __slots__ = (
        "_reported",
        "due_received",
        "due_sent",
        "failed_tags",
        "is_limited",
        "late",
        "octets_received",
        "octets_sent",
        "packets_received",
        "packets_sent",
        "renegotiate_bytes",
        "renegotiate_packets",
        "skipped",
    )

    def __init__(self, *, is_aes_gcm: bool, renegotiate_bytes: int = 0, renegotiate_packets: int = 0) -> None:
        self.is_limited = is_aes_gcm
        self.renegotiate_bytes = renegotiate_bytes
        self.renegotiate_packets = renegotiate_packets
        self.packets_sent = self.packets_received = 0
        self.octets_sent = self.octets_received = 0
        self.failed_tags = 0
        self.skipped = self.late = 0
        self._reported = False
        self.due_received = self.due_sent = 0
        self._plan_check()

    def count_sent(self, packets: int, octets: int) -> None:
        """Count sealed packets, `octets` bytes in all."""
        self.packets_sent += packets
        self.octets_sent += octets

    def count_received(self, packets: int, octets: int) -> None:
        """Count packets that were authentic and new, `octets` bytes in all."""
        self.packets_received += packets
        self.octets_received += octets

    def note_order(self, packet_id: int, highest: int) -> None:
        """A packet was accepted after those up to `highest`, and it is not the next one."""
        if packet_id > highest:
            self.skipped += packet_id - highest - 1
        else:
            self.late += 1

    def count_failed(self) -> None:
        """Count a packet whose tag did not match. It counts for no other limit: anybody can send it."""
        self.failed_tags += 1
        if self.failed_tags >= FAILED_TAGS_RENEGOTIATE and not self._reported:
            self.due_received = 0  # forgeries alone make no other limit due

    @property
    def blocks(self) -> int:
        """Blocks of 16 bytes, rounded up, plus packets, of the busier direction (or a little more)."""
        return max(
            self.octets_sent // AEAD_BLOCK_OCTETS + 2 * self.packets_sent,
            self.octets_received // AEAD_BLOCK_OCTETS + 2 * self.packets_received,
        )

    @property
    def is_dead(self) -> bool:
        """Too many tags failed: nothing may be accepted under this key any more."""
        return self.failed_tags >= FAILED_TAGS_END

    def is_due(self) -> bool:
        """Whether a limit may have been reached: ask `trigger`."""
        return self.packets_received >= self.due_received or self.packets_sent >= self.due_sent

    def trigger(self, highest_packet_id: int) -> LimitTrigger | None:
        """Why the key should be replaced; None if it should not, or if that was reported before.

        `highest_packet_id`: the higher one of those sent and received.
        """
        reason = None if self._reported else self._reason(highest_packet_id)
        self._reported = self._reported or reason is not None
        self._plan_check()
        return reason

    def _plan_check(self) -> None:
        """Set when `is_due` is true next: before any limit can be reached."""
        left = 2 * CHECK_PACKETS
        if not self._reported and self.renegotiate_packets:
            left = min(left, self.renegotiate_packets - self.packets_sent - self.packets_received)
        if not self._reported and self.renegotiate_bytes:
            octets = self.renegotiate_bytes - self.octets_sent - self.octets_received
            left = min(left, octets // LARGEST_PACKET_OCTETS)
        share = max(1, left // 2)
        self.due_received = self.packets_received + share
        self.due_sent = self.packets_sent + share

    def _reason(self, highest_packet_id: int) -> LimitTrigger | None:
        if highest_packet_id >= RENEGOTIATE_PACKET_ID:
            return "packets"
        if self.renegotiate_packets and self.packets_sent + self.packets_received >= self.renegotiate_packets:
            return "packets"
        if self.renegotiate_bytes and self.octets_sent + self.octets_received >= self.renegotiate_bytes:
            return "bytes"
        if self.failed_tags >= FAILED_TAGS_RENEGOTIATE:
            return "aead_limit"
        if self.is_limited and self.blocks >= AES_GCM_RENEGOTIATE:
            return "aead_limit"
        return None

    def aead_ratio(self) -> float:
        """Share of the AEAD limit used, 0..1, of the busier direction."""
        if not self.is_limited:
            return 0.0
        return min(1.0, self.blocks / AES_GCM_BLOCKS)

    @staticmethod
    def packet_id_ratio(highest_packet_id: int) -> float:
        """Share of the packet ids used, 0..1."""
        return min(1.0, highest_packet_id / MAX_DATA_PACKET_ID)
