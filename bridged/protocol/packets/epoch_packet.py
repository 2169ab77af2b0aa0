"""Opens data packets in the epoch format, written for reading: what both data planes do faster.

Source: docs/protocol/data.md#2-3.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.data_packet import TAG_LENGTH, Aead, DataHeader, parse_data_header

IDENTITY_LENGTH: Final = 8
"""Bytes of epoch (2) and counter (6)."""
MAX_COUNTER: Final = (1 << 48) - 1


@dataclass(frozen=True, slots=True)
class OpenedEpochData:
    """A data packet with a valid tag. It may still be a replay."""

    header: DataHeader
    epoch: int
    counter: int
    payload: bytes


def nonce(iv: bytes, identity: bytes) -> bytes:
    """The IV of the epoch XOR epoch and counter, which stand at its beginning."""
    return bytes(one ^ other for one, other in zip(iv, identity, strict=False)) + iv[IDENTITY_LENGTH:]


def parse_epoch(packet: bytes) -> tuple[DataHeader, int, int]:
    """Header, epoch and counter.

    Raises:
        RemoteProtocolError: `short_packet`, `bad_opcode`.
    """
    header = parse_data_header(packet)
    at = header.length
    if len(packet) <= at + IDENTITY_LENGTH + TAG_LENGTH:
        raise RemoteProtocolError("short_packet", f"{len(packet)} bytes hold no payload")
    epoch = int.from_bytes(packet[at : at + 2], "big")
    return header, epoch, int.from_bytes(packet[at + 2 : at + IDENTITY_LENGTH], "big")


def open_epoch(aead: Aead, iv: bytes, packet: bytes) -> OpenedEpochData:
    """Check the tag and decrypt; `aead` and `iv` are those of the packet's epoch.

    Raises:
        RemoteProtocolError: `short_packet`, `bad_opcode`, `tag_mismatch`.
    """
    header, epoch, counter = parse_epoch(packet)
    text_at = header.length + IDENTITY_LENGTH
    identity = bytes(packet[header.length : text_at])
    try:
        payload = aead.decrypt(nonce(iv, identity), bytes(packet[text_at:]), bytes(packet[:text_at]))
    except InvalidTag:
        raise RemoteProtocolError("tag_mismatch", "the tag does not match") from None
    return OpenedEpochData(header, epoch, counter, payload)
