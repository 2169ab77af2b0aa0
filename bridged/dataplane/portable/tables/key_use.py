"""How far a data key is used up, and when to ask for the next.

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

    `octets_*` count whole packets. The configured limits (0: none) count octets and packets of both
    directions together. Asked after every batch, the limits themselves are looked at only when so many
    packets or octets have passed that one of them may have been reached.
    """

    __slots__ = (
        "_told",
        "due_received",
        "due_sent",
        "failed_tags",
        "is_limited",
        "octets_received",
        "octets_sent",
        "packets_received",
        "packets_sent",
        "renegotiate_bytes",
        "renegotiate_packets",
    )

    def __init__(self, *, is_aes_gcm: bool, renegotiate_bytes: int = 0, renegotiate_packets: int = 0) -> None:
        self.is_limited = is_aes_gcm
        self.renegotiate_bytes = renegotiate_bytes
        self.renegotiate_packets = renegotiate_packets
        self.packets_sent = self.packets_received = 0
        self.octets_sent = self.octets_received = 0
        self.failed_tags = 0
        self._told = False
        self.due_received = self.due_sent = 0
        self._plan_check()

    def count_sent(self, packets: int, octets: int) -> None:
        """Packets sealed, with `octets` between them."""
        self.packets_sent += packets
        self.octets_sent += octets

    def count_received(self, packets: int, octets: int) -> None:
        """Packets that were authentic and new."""
        self.packets_received += packets
        self.octets_received += octets

    def count_failed(self) -> None:
        """A packet whose tag did not match. It counts towards no other limit: anybody can send it."""
        self.failed_tags += 1
        if self.failed_tags >= FAILED_TAGS_RENEGOTIATE and not self._told:
            self.due_received = 0  # forgeries alone make no other limit due

    @property
    def blocks(self) -> int:
        """16-octet blocks, rounded up, plus packets, of the worse direction (or a little more)."""
        return max(
            self.octets_sent // AEAD_BLOCK_OCTETS + 2 * self.packets_sent,
            self.octets_received // AEAD_BLOCK_OCTETS + 2 * self.packets_received,
        )

    @property
    def is_dead(self) -> bool:
        """So many tags failed that nothing may be accepted under this key any more."""
        return self.failed_tags >= FAILED_TAGS_END

    def is_due(self) -> bool:
        """Whether `trigger` is worth asking."""
        return self.packets_received >= self.due_received or self.packets_sent >= self.due_sent

    def trigger(self, highest_packet_id: int) -> LimitTrigger | None:
        """Why the key should be replaced; once, then always None.

        `highest_packet_id` is the higher one of those sent and received.
        """
        reason = None if self._told else self._reason(highest_packet_id)
        self._told = self._told or reason is not None
        self._plan_check()
        return reason

    def _plan_check(self) -> None:
        """Look again when so many packets have passed in one direction that a limit may be reached."""
        left = 2 * CHECK_PACKETS
        if not self._told and self.renegotiate_packets:
            left = min(left, self.renegotiate_packets - self.packets_sent - self.packets_received)
        if not self._told and self.renegotiate_bytes:
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
        """Share of the AEAD limit used, 0..1, of the worse direction."""
        if not self.is_limited:
            return 0.0
        return min(1.0, self.blocks / AES_GCM_BLOCKS)

    @staticmethod
    def packet_id_ratio(highest_packet_id: int) -> float:
        """Share of the packet ids used, 0..1."""
        return min(1.0, highest_packet_id / MAX_DATA_PACKET_ID)
