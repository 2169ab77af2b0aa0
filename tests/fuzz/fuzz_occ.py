"""Fuzz target: pings and OCC messages inside the data channel."""

from __future__ import annotations

from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.occ import PING, is_occ, parse_occ, serialize_occ


def one_input(data: bytes) -> None:
    assert not (data == PING and is_occ(data))
    try:
        message = parse_occ(data)
    except RemoteProtocolError as error:
        assert error.code == "bad_length"
        return
    assert serialize_occ(message) == data
