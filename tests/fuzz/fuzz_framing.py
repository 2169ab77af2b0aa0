"""Fuzz target: compression framing, of arbitrary payloads and of those that we frame."""

from __future__ import annotations

from bridged.protocol.packets.framing import ADDED_MOST, UNWRAPPERS, WRAPPERS, UnframedError

PACKED = (b"\x66", b"\x69")
V2_PACKED = (b"\x50\x01", b"\x50\x02", b"\x50\x03")


def one_input(data: bytes) -> None:
    for framing, unwrap in UNWRAPPERS.items():
        try:
            payload = unwrap(data)
        except UnframedError as error:
            says = data[:2] in V2_PACKED if framing == "stub-v2" else data[:1] in PACKED
            assert error.is_compressed == says
        else:
            assert len(data) - ADDED_MOST[framing] <= len(payload) <= len(data)
            behind = data[len(data) - len(payload) :]
            assert payload == (behind[-1:] + behind[:-1] if framing == "stub" else behind)
        if not data:
            continue
        framed = WRAPPERS[framing](data)
        assert len(data) <= len(framed) <= len(data) + ADDED_MOST[framing]
        assert unwrap(framed) == data
