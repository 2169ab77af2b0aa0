"""Fuzz target: options strings: ours against one of the peer."""

from __future__ import annotations

from bridged.protocol.packets.options_string import (
    LinkOptions,
    build_options_string,
    compare_options,
    option_value,
)
from bridged.protocol.role import Role
from bridged.protocol.text import decode_text

OURS = build_options_string(LinkOptions(Role.CLIENT))


def one_input(data: bytes) -> None:
    text = decode_text(data)
    for difference in compare_options(OURS, text):
        assert difference.isprintable() and len(difference) < 300
    assert compare_options(text, text) == []
    option_value(text, "cipher")
