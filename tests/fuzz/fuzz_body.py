"""Fuzz target: the inner part of control packets; the first byte of the input chooses the opcode."""

from __future__ import annotations

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.packet import (
    parse_body,
    parse_first_octet,
    parse_header,
    serialize_body,
    serialize_header,
)


def one_input(data: bytes) -> None:
    try:
        header = parse_header(data)
        assert data.startswith(serialize_header(header))
    except RemoteProtocolError:
        pass
    if not data:
        return
    try:
        opcode, _ = parse_first_octet(data[0])
        body = parse_body(opcode, data[1:])
    except RemoteProtocolError:
        return
    assert serialize_body(body) == data[1:]
    assert len(body.acks) <= 8
    assert (body.message_id is not None) == opcode.has_message_id
