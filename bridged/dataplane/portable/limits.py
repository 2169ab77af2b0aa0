"""How far a data key is used up, and when to ask for the next.

Source: docs/protocol/data.md, sections 3.1 and 3.3.
Pure: counts only.
"""

from __future__ import annotations

from typing import Final

from bridged.dataplane.contract import LimitTrigger
from bridged.protocol.data_packet import MAX_DATA_PACKET_ID, RENEGOTIATE_PACKET_ID

AEAD_BLOCK_OCTETS: Final = 16
AES_GCM_BLOCKS: Final = 2**36 - 1
"""Blocks and packets of one direction under one AES-GCM key."""
AES_GCM_RENEGOTIATE: Final = AES_GCM_BLOCKS * 7 // 8
FAILED_TAGS_RENEGOTIATE: Final = 2**35
FAILED_TAGS_END: Final = 2**36


class KeyUse:
    """Counts of one key, both directions; `trigger` says once that it should be replaced.

    `blocks_*` count 16-octet blocks rounded up, plus packets. The configured limits (0: none) count
    octets and packets of both directions together.
    """

    __slots__ = (
        "_told",
        "blocks_received",
        "blocks_sent",
        "failed_tags",
        "is_limited",
        "octets",
        "packets",
        "renegotiate_bytes",
        "renegotiate_packets",
    )

    def __init__(self, *, is_aes_gcm: bool, renegotiate_bytes: int = 0, renegotiate_packets: int = 0) -> None:
        self.is_limited = is_aes_gcm
        self.renegotiate_bytes = renegotiate_bytes
        self.renegotiate_packets = renegotiate_packets
        self.blocks_sent = 0
        self.blocks_received = 0
        self.octets = 0
        self.packets = 0
        self.failed_tags = 0
        self._told = False

    def count_sent(self, packets: int, octets: int) -> None:
        """Packets sealed, with `octets` of payload between them."""
        self.packets += packets
        self.octets += octets
        # At most one block more per packet than the exact figure, and one for the packet itself.
        self.blocks_sent += octets // AEAD_BLOCK_OCTETS + 2 * packets

    def count_received(self, packets: int, octets: int) -> None:
        """Packets whose tag was good."""
        self.packets += packets
        self.octets += octets
        self.blocks_received += octets // AEAD_BLOCK_OCTETS + 2 * packets

    @property
    def is_dead(self) -> bool:
        """So many tags failed that nothing may be accepted under this key any more."""
        return self.failed_tags >= FAILED_TAGS_END

    def trigger(self, highest_packet_id: int) -> LimitTrigger | None:
        """Why the key should be replaced; once, then always None.

        `highest_packet_id` is the higher one of those sent and received.
        """
        if self._told:
            return None
        reason = self._reason(highest_packet_id)
        self._told = reason is not None
        return reason

    def _reason(self, highest_packet_id: int) -> LimitTrigger | None:
        if highest_packet_id >= RENEGOTIATE_PACKET_ID:
            return "packets"
        if self.renegotiate_packets and self.packets >= self.renegotiate_packets:
            return "packets"
        if self.renegotiate_bytes and self.octets >= self.renegotiate_bytes:
            return "bytes"
        if self.failed_tags >= FAILED_TAGS_RENEGOTIATE:
            return "aead_limit"
        if self.is_limited and max(self.blocks_sent, self.blocks_received) >= AES_GCM_RENEGOTIATE:
            return "aead_limit"
        return None

    def aead_ratio(self) -> float:
        """Share of the AEAD limit used, 0..1, of the worse direction."""
        if not self.is_limited:
            return 0.0
        return min(1.0, max(self.blocks_sent, self.blocks_received) / AES_GCM_BLOCKS)

    @staticmethod
    def packet_id_ratio(highest_packet_id: int) -> float:
        """Share of the packet ids used, 0..1."""
        return min(1.0, highest_packet_id / MAX_DATA_PACKET_ID)
