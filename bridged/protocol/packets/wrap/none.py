"""No wrap: the body follows the header unencrypted; no packet ids, no replay check.

Source: docs/protocol/control.md#2-2.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

from bridged.protocol.packets.packet import HEADER_LENGTH, ControlHeader, parse_header, serialize_header
from bridged.protocol.packets.wrap.keys import OpenedControl, WrapSecrets


class NoWrap:
    """TLS alone protects the control channel. `seal` sends neither packet id nor time."""

    name = "none"
    overhead = 0
    has_packet_ids = False
    wrapped_key = b""
    first_packet_id = 1
    secrets = WrapSecrets()

    def seal(self, header: ControlHeader, packet_id: int, packet_time: int, body: bytes) -> bytes:
        return serialize_header(header) + body

    def open(self, datagram: bytes) -> OpenedControl:
        return OpenedControl(parse_header(datagram), 0, 0, bytes(datagram[HEADER_LENGTH:]))

    def __repr__(self) -> str:
        return "NoWrap()"
