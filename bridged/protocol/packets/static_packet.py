"""Data packets under a static key, without TLS: no header, and a time beside the packet id.

Source: docs/protocol/data.md#2-4; docs/decisions/0115.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.packets.cbc_packet import BLOCK, CbcHmac
from bridged.protocol.packets.data_packet import MAX_DATA_PACKET_ID

LONG_ID_LENGTH: Final = 8
"""Bytes of packet id (4) and time (4)."""
ORIGIN_LENGTH: Final = 32
"""Bytes of the secret by which an end knows its own packets."""


@dataclass(frozen=True, slots=True)
class OpenedStaticData:
    """A data packet with a valid HMAC. It may still be a replay."""

    packet_id: int
    packet_time: int
    payload: bytes
    iv: bytes

    def is_from(self, origin: bytes | bytearray) -> bool:
        """Whether the end with this secret has sealed it; never with an empty one."""
        if not origin:
            return False
        return hmac.compare_digest(self.iv, marked_iv(origin, self.packet_id, self.packet_time))


def marked_iv(origin: bytes | bytearray, packet_id: int, packet_time: int) -> bytes:
    """An IV that looks random, and shows the end with this secret that the packet is its own."""
    long_id = packet_id.to_bytes(4, "big") + packet_time.to_bytes(4, "big")
    return hmac.digest(origin, long_id, "sha256")[:BLOCK]


def seal_static(key: CbcHmac, iv: bytes, packet_id: int, packet_time: int, payload: bytes) -> bytes:
    """Make a data packet; `packet_id` 1..2^32-1, never reused with one time.

    Raises:
        LocalProtocolError: a packet id that may not be sent, or an empty payload.
    """
    if not 1 <= packet_id <= MAX_DATA_PACKET_ID or not payload:
        raise LocalProtocolError(f"packet id {packet_id} may not be sent, nor an empty payload")
    return key.seal(iv, packet_id.to_bytes(4, "big") + packet_time.to_bytes(4, "big") + payload)


def open_static(key: CbcHmac, packet: bytes) -> OpenedStaticData:
    """Check the HMAC and decrypt.

    Raises:
        RemoteProtocolError: `short_packet`, `tag_mismatch`.
    """
    if len(packet) <= key.mac_length + BLOCK:
        raise RemoteProtocolError("short_packet", f"{len(packet)} bytes hold no payload")
    content = key.open(packet)
    if content is None or len(content) < LONG_ID_LENGTH:
        raise RemoteProtocolError("tag_mismatch", "the HMAC does not match")
    times = int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")
    iv = packet[key.mac_length : key.mac_length + BLOCK]
    return OpenedStaticData(*times, content[LONG_ID_LENGTH:], iv)
