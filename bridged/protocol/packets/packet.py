"""Control packets: first byte, header and body. The wrap around them is in `wrap`.

Source: docs/protocol/control.md#1 and #2-1.
Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.units import KeyId, Octets

SESSION_ID_LENGTH: Final = 8
HEADER_LENGTH: Final = 1 + SESSION_ID_LENGTH
MAX_ACKS: Final = 8
"""A receiver rejects ack counts above this (control.md#3-2)."""
MAX_PIGGYBACKED_ACKS: Final = 4
"""Acks in a control packet that carries a message id (control.md#3-2)."""
MAX_KEY_ID: Final = 7

TLS_MTU_DEFAULT: Final = 1250
"""Setting `tls-mtu`: bytes of one control packet with IP and UDP header (control.md#3-4)."""

_NO_SESSION: Final = bytes(SESSION_ID_LENGTH)


class Opcode(IntEnum):
    """High five bits of the first byte (control.md#1-1). HARD_RESET_*_V1 are obsolete and refused."""

    HARD_RESET_CLIENT_V1 = 1
    HARD_RESET_SERVER_V1 = 2
    SOFT_RESET_V1 = 3
    CONTROL_V1 = 4
    ACK_V1 = 5
    DATA_V1 = 6
    HARD_RESET_CLIENT_V2 = 7
    HARD_RESET_SERVER_V2 = 8
    DATA_V2 = 9
    HARD_RESET_CLIENT_V3 = 10
    CONTROL_WKC_V1 = 11

    @property
    def is_control(self) -> bool:
        """The control channel handles it. True for ACK_V1, False for obsolete opcodes."""
        return self not in _DATA and self not in _OBSOLETE

    @property
    def has_message_id(self) -> bool:
        """The packet has a message id, and the peer acknowledges it."""
        return self.is_control and self is not Opcode.ACK_V1

    @property
    def is_hard_reset(self) -> bool:
        """Opens a session, or answers such a packet."""
        return self in _HARD_RESETS


_DATA: Final = frozenset({Opcode.DATA_V1, Opcode.DATA_V2})
_OBSOLETE: Final = frozenset({Opcode.HARD_RESET_CLIENT_V1, Opcode.HARD_RESET_SERVER_V1})
_HARD_RESETS: Final = frozenset(
    {Opcode.HARD_RESET_CLIENT_V2, Opcode.HARD_RESET_CLIENT_V3, Opcode.HARD_RESET_SERVER_V2}
)
_BY_NUMBER: Final[dict[int, Opcode]] = {int(opcode): opcode for opcode in Opcode}


@dataclass(frozen=True, slots=True)
class ControlHeader:
    """What precedes every control packet, unencrypted.

    `session_id` is the sender's, 8 bytes, never all zero.
    """

    opcode: Opcode
    key_id: KeyId
    session_id: bytes


@dataclass(frozen=True, slots=True)
class ControlBody:
    """The authenticated inner part, the same under every wrap (control.md#2-1).

    `remote_session_id` (8 bytes, the receiver's) is there if and only if there are acks. `message_id` is None
    in ACK_V1 alone, which has no payload either.
    """

    acks: tuple[int, ...] = ()
    remote_session_id: bytes | None = None
    message_id: int | None = None
    payload: bytes = b""


def parse_first_octet(octet: int) -> tuple[Opcode, KeyId]:
    """Split the first byte of a packet into opcode and key id (0..7).

    Obsolete and data opcodes are returned; `parse_header` refuses them.

    Raises:
        RemoteProtocolError: `bad_opcode` for a number that names no packet.
    """
    opcode = _BY_NUMBER.get(octet >> 3)
    if opcode is None:
        raise RemoteProtocolError("bad_opcode", f"no packet has opcode {octet >> 3}")
    return opcode, KeyId(octet & 7)


def first_octet(opcode: Opcode, key_id: int) -> int:
    """Join opcode and key id (0..7)."""
    if not 0 <= key_id <= MAX_KEY_ID:
        raise LocalProtocolError(f"key id {key_id} is not in 0..{MAX_KEY_ID}")
    return opcode << 3 | key_id


def parse_header(datagram: bytes) -> ControlHeader:
    """Read first byte and session id of a control packet, under any wrap.

    Raises:
        RemoteProtocolError: `short_packet`; `bad_opcode` for data, obsolete and unknown opcodes;
            `bad_length` for the all-zero session id.
    """
    if not datagram:
        raise RemoteProtocolError("short_packet", "empty packet")
    opcode, key_id = parse_first_octet(datagram[0])
    if not opcode.is_control:
        raise RemoteProtocolError("bad_opcode", f"{opcode.name} is not a control packet")
    if len(datagram) < HEADER_LENGTH:
        raise RemoteProtocolError("short_packet", f"{len(datagram)} bytes hold no session id")
    session_id = bytes(datagram[1:HEADER_LENGTH])
    if session_id == _NO_SESSION:
        raise RemoteProtocolError("bad_length", "the session id is all zero")
    return ControlHeader(opcode, key_id, session_id)


def serialize_header(header: ControlHeader) -> bytes:
    """First byte and session id as sent (9 bytes)."""
    if len(header.session_id) != SESSION_ID_LENGTH or header.session_id == _NO_SESSION:
        raise LocalProtocolError("a session id has 8 bytes and is not all zero")
    if not header.opcode.is_control:
        raise LocalProtocolError(f"{header.opcode.name} is not a control packet")
    return bytes((first_octet(header.opcode, header.key_id),)) + header.session_id


def parse_body(opcode: Opcode, body: bytes) -> ControlBody:
    """Read the inner part of a control packet after it has been unwrapped.

    Raises:
        RemoteProtocolError: `short_packet` if a field is cut off; `bad_length` for more than
            8 acks or a payload in ACK_V1; `bad_opcode` for an opcode without a body.
    """
    if not opcode.is_control:
        raise RemoteProtocolError("bad_opcode", f"{opcode.name} has no control body")
    if not body:
        raise RemoteProtocolError("short_packet", "no ack count")
    count = body[0]
    if count > MAX_ACKS:
        raise RemoteProtocolError("bad_length", f"{count} acks; at most {MAX_ACKS} are allowed")
    position = 1 + 4 * count + (SESSION_ID_LENGTH if count else 0)
    needed = position + (4 if opcode.has_message_id else 0)
    if len(body) < needed:
        raise RemoteProtocolError("short_packet", f"{len(body)} bytes of body, {needed} announced")
    acks = struct.unpack_from(f">{count}I", body, 1)
    remote = bytes(body[position - SESSION_ID_LENGTH : position]) if count else None
    if not opcode.has_message_id:
        if len(body) > position:
            raise RemoteProtocolError("bad_length", "an acknowledgement carries no payload")
        return ControlBody(acks, remote)
    (message_id,) = struct.unpack_from(">I", body, position)
    return ControlBody(acks, remote, message_id, bytes(body[needed:]))


def serialize_body(body: ControlBody) -> bytes:
    """Write the inner part of a control packet.

    Raises:
        LocalProtocolError: too many acks, acks without remote session id (or the reverse), or a
            payload without message id.
    """
    if len(body.acks) > MAX_ACKS:
        raise LocalProtocolError(f"{len(body.acks)} acks; at most {MAX_ACKS} fit")
    if bool(body.acks) != (body.remote_session_id is not None):
        raise LocalProtocolError("a remote session id needs acks, and acks need it")
    if body.message_id is None and body.payload:
        raise LocalProtocolError("an acknowledgement carries no payload")
    remote = body.remote_session_id or b""
    if body.acks and len(remote) != SESSION_ID_LENGTH:
        raise LocalProtocolError("a session id has 8 bytes")
    try:
        acks = struct.pack(f">B{len(body.acks)}I", len(body.acks), *body.acks)
        message_id = b"" if body.message_id is None else struct.pack(">I", body.message_id)
    except struct.error as error:
        raise LocalProtocolError(f"ids are 32 bits wide: {error}") from error
    return acks + remote + message_id + body.payload


def payload_room(
    wrap_overhead: int, acks: int, *, tls_mtu: int = TLS_MTU_DEFAULT, ip_udp_header: int = 28
) -> Octets:
    """Bytes of TLS that one control packet may carry within `tls_mtu` (control.md#3-4).

    `wrap_overhead` is `WrapKeys.overhead`; `acks` the acks in the same packet (0..8);
    `ip_udp_header` 28 (IPv4) or 48 (IPv6). At least 1: a handshake must make progress.
    """
    ack_block = 1 + (4 * acks + SESSION_ID_LENGTH if acks else 0)
    return Octets(max(1, tls_mtu - ip_udp_header - HEADER_LENGTH - wrap_overhead - ack_block - 4))
