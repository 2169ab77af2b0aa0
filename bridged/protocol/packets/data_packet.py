"""Data packets with an AEAD cipher, written for reading: what both data planes do faster.

Source: docs/protocol/data.md#2 and #2-1.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.packet import Opcode, first_octet, parse_first_octet
from bridged.units import KeyId, Octets, WirePeerId

TAG_LENGTH: Final = 16
PACKET_ID_LENGTH: Final = 4
HEADER_V1: Final = Octets(1)
HEADER_V2: Final = Octets(4)
OVERHEAD_V1: Final = Octets(HEADER_V1 + PACKET_ID_LENGTH + TAG_LENGTH)
OVERHEAD_V2: Final = Octets(HEADER_V2 + PACKET_ID_LENGTH + TAG_LENGTH)
MAX_DATA_PACKET_ID: Final = 0xFFFFFFFF
RENEGOTIATE_PACKET_ID: Final = 0xFF000000
"""Renegotiate from this packet id on (data.md#3-1)."""
NO_PEER_ID: Final = WirePeerId(0xFFFFFF)


class Aead(Protocol):
    """An AEAD cipher with its key. The tag follows the ciphertext, as in all libraries."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


@dataclass(frozen=True, slots=True)
class DataHeader:
    """First byte, and peer id (DATA_V2 only; None in DATA_V1)."""

    opcode: Opcode
    key_id: KeyId
    peer_id: WirePeerId | None

    @property
    def length(self) -> int:
        return HEADER_V1 if self.peer_id is None else HEADER_V2


@dataclass(frozen=True, slots=True)
class OpenedData:
    """A data packet with a valid tag. It may still be a replay."""

    header: DataHeader
    packet_id: int
    payload: bytes


def make_aead(cipher: Cipher, key: bytes | bytearray) -> Aead:
    """The cipher with a key of `cipher.key_length` bytes."""
    if len(key) != cipher.key_length:
        raise LocalProtocolError(f"{cipher} takes a key of {cipher.key_length} bytes, not {len(key)}")
    return AESGCM(bytes(key)) if cipher.is_aes_gcm else ChaCha20Poly1305(bytes(key))


def serialize_data_header(key_id: int, peer_id: int | None) -> bytes:
    """4 bytes of DATA_V2, or 1 byte of DATA_V1 if `peer_id` is None."""
    if peer_id is None:
        return bytes((first_octet(Opcode.DATA_V1, key_id),))
    if not 0 <= peer_id <= NO_PEER_ID:
        raise LocalProtocolError(f"peer id {peer_id} does not fit 24 bits")
    return struct.pack(">I", first_octet(Opcode.DATA_V2, key_id) << 24 | peer_id)


def parse_data_header(packet: bytes) -> DataHeader:
    """Read first byte and peer id.

    Raises:
        RemoteProtocolError: `short_packet`; `bad_opcode` for anything but data.
    """
    if not packet:
        raise RemoteProtocolError("short_packet", "empty packet")
    opcode, key_id = parse_first_octet(packet[0])
    if opcode is Opcode.DATA_V1:
        return DataHeader(opcode, key_id, None)
    if opcode is not Opcode.DATA_V2:
        raise RemoteProtocolError("bad_opcode", f"{opcode.name} is not a data packet")
    if len(packet) < HEADER_V2:
        raise RemoteProtocolError("short_packet", f"{len(packet)} bytes hold no peer id")
    return DataHeader(opcode, key_id, WirePeerId(int.from_bytes(packet[1:HEADER_V2], "big")))


def seal(aead: Aead, implicit_iv: bytes, header: bytes, packet_id: int, payload: bytes) -> bytes:
    """Make a data packet. `header` as `serialize_data_header`; `packet_id` 1..2^32-1, never reused.

    Raises:
        LocalProtocolError: a packet id that may not be sent, or an empty payload.
    """
    if not 1 <= packet_id <= MAX_DATA_PACKET_ID:
        raise LocalProtocolError(f"packet id {packet_id} may not be sent")
    if not payload:
        raise LocalProtocolError("a data packet carries at least one byte")
    number = packet_id.to_bytes(PACKET_ID_LENGTH, "big")
    sealed = aead.encrypt(number + implicit_iv, payload, _additional_data(header, number))
    # On the wire the tag precedes the ciphertext.
    return header + number + sealed[-TAG_LENGTH:] + sealed[:-TAG_LENGTH]


def open(aead: Aead, implicit_iv: bytes, packet: bytes) -> OpenedData:
    """Check the tag and decrypt.

    Raises:
        RemoteProtocolError: `short_packet`, `bad_opcode`, `tag_mismatch`.
    """
    header = parse_data_header(packet)
    tag_at = header.length + PACKET_ID_LENGTH
    text_at = tag_at + TAG_LENGTH
    if len(packet) <= text_at:
        raise RemoteProtocolError("short_packet", f"{len(packet)} bytes hold no payload")
    number = bytes(packet[header.length : tag_at])
    sealed = bytes(packet[text_at:]) + bytes(packet[tag_at:text_at])
    additional = _additional_data(bytes(packet[: header.length]), number)
    try:
        payload = aead.decrypt(number + implicit_iv, sealed, additional)
    except InvalidTag:
        raise RemoteProtocolError("tag_mismatch", "the tag does not match") from None
    return OpenedData(header, int.from_bytes(number, "big"), payload)


def _additional_data(header: bytes, number: bytes) -> bytes:
    # DATA_V1 does not authenticate its first byte.
    return number if len(header) == HEADER_V1 else header + number
