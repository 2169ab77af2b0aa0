"""A server's notice that it has no session for a data packet. Thanks to it, clients notice a crash sooner.

Source: docs/decisions/0036.
Pure: bytes in, bytes out. Anyone can forge a notice: it makes a client ask, and ends nothing. It looks like
a data packet of a key that the client does not have. At its usual verbosity OpenVPN drops those silently.
"""

from __future__ import annotations

from typing import Final

from bridged.protocol.packets.packet import Opcode, first_octet

_MARK: Final = bytes.fromhex("b20c0d193b02589cad024c515abd2c74")
_ANY_PEER: Final = b"\xff\xff\xff"
NOTICE_OCTETS: Final = 20
KEY_IDS: Final = 8


def serialize_notice(key_id: int) -> bytes:
    """A notice of NOTICE_OCTETS bytes for a client that used `key_id`; its own key id is one not in use."""
    unused = (key_id + KEY_IDS // 2) % KEY_IDS
    return bytes((first_octet(Opcode.DATA_V2, unused),)) + _ANY_PEER + _MARK


def is_notice(packet: bytes) -> bool:
    """Whether a data packet of an unknown key is a notice."""
    return len(packet) == NOTICE_OCTETS and packet[4:] == _MARK
