"""Fuzz target: pings and OCC messages inside the data channel."""

from __future__ import annotations

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.occ import (
    is_occ,
    is_ping,
    parse_mtu_load_size,
    parse_occ,
    parse_occ_options,
    serialize_occ,
)


def one_input(data: bytes) -> None:
    assert not (is_ping(data) and is_occ(data))
    try:
        message = parse_occ(data)
    except RemoteProtocolError as error:
        assert error.code == "bad_length"
        return
    assert serialize_occ(message) == data
    repr(parse_occ_options(message)).encode()
    try:
        assert 0 <= parse_mtu_load_size(message) <= 0xFFFF
    except RemoteProtocolError:
        assert len(message.body) < 2
