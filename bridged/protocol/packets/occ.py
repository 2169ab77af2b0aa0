"""Ping and OCC messages inside the data channel.

Source: docs/protocol/data.md#5-1 and #5-2.
Pure: bytes in, values out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from bridged.errors import RemoteProtocolError

PING: Final = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
"""The whole payload of a keepalive ping."""
OCC_MAGIC: Final = bytes.fromhex("287f346bd4ef7a812d56b8d3afc5459c")
MAGIC_ADDRESSES: Final = frozenset((PING[:12], OCC_MAGIC[:12]))
"""Their first bytes, which in a frame would be its two addresses."""
_BODY_AT: Final = len(OCC_MAGIC) + 1
_AROUND: Final = 24
"""Bytes of a packet around its payload, with an AEAD cipher."""


class OccType(IntEnum):
    """The byte after the magic."""

    REQUEST = 0
    REPLY = 1
    MTU_LOAD_REQUEST = 2
    MTU_LOAD = 3
    MTU_REQUEST = 4
    MTU_REPLY = 5
    EXIT = 6


@dataclass(frozen=True, slots=True)
class OccMessage:
    """An OCC message; `body` is what follows the type, see the `parse_*` functions."""

    type: OccType
    body: bytes = b""


def is_occ(payload: bytes) -> bool:
    """The payload (framing taken off) is an OCC message; it never reaches the TAP."""
    return payload.startswith(OCC_MAGIC)


def is_filled(payload: bytes) -> bool:
    """An OCC message is of a kind that is filled up to a size: what comes late in it means nothing."""
    return len(payload) >= _BODY_AT and payload[_BODY_AT - 1] in (OccType.MTU_LOAD_REQUEST, OccType.MTU_LOAD)


def begins_as_housekeeping(frame: bytes) -> bool:
    """The frame begins with one of the two magics: a peer would take it for a ping or an OCC message."""
    return frame.startswith((PING, OCC_MAGIC))


def parse_occ(payload: bytes) -> OccMessage:
    """Read an OCC message.

    Raises:
        RemoteProtocolError: `bad_length`: magic or type is missing, or the type is unknown.
    """
    if not is_occ(payload) or len(payload) < _BODY_AT:
        raise RemoteProtocolError("bad_length", "not an OCC message")
    try:
        kind = OccType(payload[_BODY_AT - 1])
    except ValueError:
        raise RemoteProtocolError("bad_length", f"unknown OCC type {payload[_BODY_AT - 1]}") from None
    return OccMessage(kind, bytes(payload[_BODY_AT:]))


def serialize_occ(message: OccMessage) -> bytes:
    """The payload to seal."""
    return OCC_MAGIC + bytes((message.type,)) + message.body


OCC_EXIT: Final = serialize_occ(OccMessage(OccType.EXIT))


def load_of(request: OccMessage, largest_frame: int) -> OccMessage | None:
    """Answer to a request for load: a packet of the size that it names (AEAD, DATA_V2).

    It is no larger than that of the `largest_frame` (bytes). None: the request names no size.
    """
    if request.type is not OccType.MTU_LOAD_REQUEST or len(request.body) < 2:
        return None
    size = min(int.from_bytes(request.body[:2], "big"), largest_frame + _AROUND)
    return OccMessage(OccType.MTU_LOAD, bytes(max(0, size - _BODY_AT - _AROUND)))


def mtu_reply(received: int, sent: int) -> OccMessage:
    """Answer to an mtu-request: bytes of the largest packets that this end received and sent."""
    body = b"".join(min(octets, 0xFFFF).to_bytes(2, "big") for octets in (received, sent))
    return OccMessage(OccType.MTU_REPLY, body)


def occ_reply(options: str) -> OccMessage:
    """Answer to a request: our options string."""
    return OccMessage(OccType.REPLY, options.encode() + b"\0")
