"""A server's notice that it knows no session for a data packet: after a crash, its clients ask sooner.

Source: docs/decisions/0036.
Pure: octets in, octets out. Anybody can forge it: it makes a client ask, and ends nothing. It looks like a
data packet of a key that the client does not have, which OpenVPN drops silently at its usual verbosity.
"""

from __future__ import annotations

from typing import Final

from bridged.protocol.packets.packet import Opcode, first_octet

_MARK: Final = bytes.fromhex("b20c0d193b02589cad024c515abd2c74")
_ANY_PEER: Final = b"\xff\xff\xff"
NOTICE_OCTETS: Final = 20
KEY_IDS: Final = 8


def serialize_notice(key_id: int) -> bytes:
    """NOTICE_OCTETS, for a client that used `key_id`: keys half a round away from that one it has not."""
    unused = (key_id + KEY_IDS // 2) % KEY_IDS
    return bytes((first_octet(Opcode.DATA_V2, unused),)) + _ANY_PEER + _MARK


def is_notice(packet: bytes) -> bool:
    """Whether a data packet of an unknown key is one."""
    return len(packet) == NOTICE_OCTETS and packet[4:] == _MARK
