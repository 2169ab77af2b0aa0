"""Fuzz target: control packets under every wrap, from arbitrary bytes and from bytes we sealed."""

from __future__ import annotations

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.packet import ControlHeader, Opcode, parse_body, serialize_body
from bridged.protocol.packets.wrap import NoWrap, TlsAuthKeys, TlsCryptKeys, WrapChannel, WrapKeys
from bridged.protocol.role import Role
from bridged.units import KeyId

KEY = StaticKey(bytes(range(256)))
PAIRS: tuple[tuple[WrapKeys, WrapKeys], ...] = (
    (NoWrap(), NoWrap()),
    (TlsAuthKeys(KEY, 1), TlsAuthKeys(KEY, 0)),
    (TlsAuthKeys(KEY, None, "SHA512"), TlsAuthKeys(KEY, None, "SHA512")),
    (TlsCryptKeys(KEY, Role.CLIENT), TlsCryptKeys(KEY, Role.SERVER)),
)
HEADER = ControlHeader(Opcode.CONTROL_V1, KeyId(0), b"12345678")


def one_input(data: bytes) -> None:
    for sending, receiving in PAIRS:
        channel = WrapChannel(receiving, packet_time=0)
        try:
            opened = receiving.open(data)
            channel.record(opened, now=0.0)
        except RemoteProtocolError:
            pass
        else:
            assert sending.seal(opened.header, opened.packet_id, opened.packet_time, opened.body) == data
        ids = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
        sealed = sending.seal(HEADER, *ids, data[8:])
        opened = receiving.open(sealed)
        assert opened.body == data[8:] and opened.header == HEADER
        try:
            channel.record(opened, now=1.0)
            body = parse_body(opened.header.opcode, opened.body)
        except RemoteProtocolError:
            continue
        assert serialize_body(body) == opened.body
