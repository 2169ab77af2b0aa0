"""Fuzz target: static key files."""

from __future__ import annotations

from bridged.errors import ConfigurationError
from bridged.protocol.keys.static_key import parse_static_key
from bridged.protocol.text import decode_text


def one_input(data: bytes) -> None:
    try:
        key = parse_static_key(decode_text(data), "ta.key")
    except ConfigurationError as error:
        assert error.file == "ta.key"
        return
    assert parse_static_key(key.serialize(), "again") == key
    assert key.octets.hex()[:8] not in repr(key)
