"""Fuzz target: key method 2 messages of both ends."""

from __future__ import annotations

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.key_exchange import (
    parse_client_key_message,
    parse_server_key_message,
    serialize_client_key_message,
    serialize_server_key_message,
    split_server_key_message,
)


def one_input(data: bytes) -> None:
    try:
        client = parse_client_key_message(data)
        repr(client)
        assert parse_client_key_message(serialize_client_key_message(client)) == client
    except (RemoteProtocolError, LocalProtocolError) as error:
        # Bytes that are not UTF-8 grow as they are escaped; only then may serializing refuse.
        assert isinstance(error, RemoteProtocolError) or len(data) > 3000
    try:
        server, rest = split_server_key_message(data)
        assert data.endswith(rest)
        assert parse_server_key_message(serialize_server_key_message(server)) == server
    except (RemoteProtocolError, LocalProtocolError) as error:
        assert isinstance(error, RemoteProtocolError) or len(data) > 3000
