"""What a server's hard reset asks of a client, before TLS.

Source: docs/protocol/control.md#2-5.
Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from typing import Final

from bridged.errors import RemoteProtocolError

_FIELD: Final = struct.Struct(">HH")
_FLAGS: Final = 1
_RESEND_KEY: Final = 1

RESEND_KEY_REQUEST: Final = _FIELD.pack(_FLAGS, 2) + _RESEND_KEY.to_bytes(2, "big")
"""Payload of a server's reset: send your wrapped key once more, because I keep nothing."""


def wants_key_again(payload: bytes) -> bool:
    """Whether the client must send its wrapped key a second time.

    Raises:
        RemoteProtocolError: `bad_length`, a field is cut off or has another length.
    """
    position, is_wanted = 0, False
    while position < len(payload):
        if len(payload) - position < _FIELD.size:
            raise RemoteProtocolError("bad_length", "a field of the hard reset is cut off")
        kind, length = _FIELD.unpack_from(payload, position)
        position += _FIELD.size
        value = payload[position : position + length]
        position += length
        if len(value) < length or (kind == _FLAGS and length != 2):
            raise RemoteProtocolError("bad_length", "a field of the hard reset has a wrong length")
        if kind == _FLAGS:
            is_wanted |= bool(int.from_bytes(value, "big") & _RESEND_KEY)
    return is_wanted
