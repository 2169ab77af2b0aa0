"""Fuzz target: control-channel text: what TLS delivers after the key messages."""

from __future__ import annotations

from bridged.errors import LocalProtocolError
from bridged.protocol.packets.messages import parse_message, serialize_message, split_messages


def one_input(data: bytes) -> None:
    texts = split_messages(data)
    assert len(texts) <= 64
    for text in texts:
        message = parse_message(text)
        repr(message).encode()
        try:
            sent = serialize_message(message)
        except LocalProtocolError:
            assert len(text) > 300
            continue
        assert parse_message(sent[:-1].decode()) == message
