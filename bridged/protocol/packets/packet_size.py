"""How long a data packet is that carries a payload of some length.

Source: docs/protocol/data.md#2, #4 and #5-4.
Pure values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.digest import digest_length
from bridged.protocol.packets.cbc_packet import BLOCK
from bridged.protocol.packets.data_packet import HEADER_V1, HEADER_V2, PACKET_ID_LENGTH, TAG_LENGTH
from bridged.protocol.packets.epoch_packet import IDENTITY_LENGTH
from bridged.protocol.packets.fragments import HEADER_OCTETS
from bridged.protocol.packets.framing import Framing
from bridged.protocol.packets.static_packet import LONG_ID_LENGTH

_BEFORE: Final[dict[Framing, int]] = {"none": 0, "comp-lzo": 1, "stub": 1, "stub-v2": 0}
"""What framing adds to a payload that does not begin with its own mark."""


@dataclass(frozen=True, slots=True)
class PacketShape:
    """What both ends of a session put around payloads. `fragment`: as `Negotiated.fragment`."""

    cipher: Cipher
    digest: str
    has_peer_id: bool
    is_epoch: bool = False
    is_static: bool = False
    framing: Framing = "none"
    fragment: int = 0

    def octets(self, payload: int) -> int:
        """Bytes of the datagram, without IP and UDP; of the largest if the payload is cut into several."""
        content = payload + _BEFORE[self.framing] + (HEADER_OCTETS if self.fragment else 0)
        header = 0 if self.is_static else HEADER_V2 if self.has_peer_id else HEADER_V1
        if self.cipher.is_cbc:
            content += LONG_ID_LENGTH if self.is_static else PACKET_ID_LENGTH
            whole = header + digest_length(self.digest) + BLOCK + (content // BLOCK + 1) * BLOCK
        else:
            whole = header + (IDENTITY_LENGTH if self.is_epoch else PACKET_ID_LENGTH) + content + TAG_LENGTH
        return min(whole, self.fragment) if self.fragment else whole
