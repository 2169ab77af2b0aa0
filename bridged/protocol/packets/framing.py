"""Compression framing: what stands around a payload that is never compressed.

Source: docs/protocol/data.md#4-2.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

Framing = Literal["none", "comp-lzo", "stub", "stub-v2"]
"""By the directives of OpenVPN: none at all, `comp-lzo`, `compress stub`, `compress stub-v2`."""

ADDED_MOST: Final[Mapping[Framing, int]] = {"none": 0, "comp-lzo": 1, "stub": 1, "stub-v2": 2}
"""The most bytes that framing adds to a payload."""

_LZO_PLAIN: Final = b"\xfa"
_SWAPPED: Final = b"\xfb"
_PACKED: Final = (b"\x66", b"\x69")
"""First bytes of payloads that LZO and LZ4 compressed."""
_V2_MARK: Final = b"\x50"
_V2_PLAIN: Final = b"\x50\x00"
_V2_PLAIN_OPENVPN: Final = b"\x50\x0a"
_V2_PACKED: Final = (b"\x50\x01", b"\x50\x02", b"\x50\x03")


class UnframedError(Exception):
    """A payload without a frame. `is_compressed`: the peer compresses; else it is framed in another way."""

    def __init__(self, *, is_compressed: bool) -> None:
        super().__init__("compressed" if is_compressed else "framed in another way")
        self.is_compressed = is_compressed


def _wrap_comp_lzo(payload: bytes) -> bytes:
    return _LZO_PLAIN + payload


def _wrap_stub(payload: bytes) -> bytes:
    return _SWAPPED + payload[1:] + payload[:1]


def _wrap_stub_v2(payload: bytes) -> bytes:
    return _V2_PLAIN + payload if payload[:1] == _V2_MARK else payload


def _unwrap_comp_lzo(payload: bytes) -> bytes:
    if payload[:1] != _LZO_PLAIN:
        raise UnframedError(is_compressed=payload[:1] in _PACKED)
    return payload[1:]


def _unwrap_stub(payload: bytes) -> bytes:
    if payload[:1] != _SWAPPED or len(payload) < 2:
        raise UnframedError(is_compressed=payload[:1] in _PACKED)
    return payload[-1:] + payload[1:-1]


def _unwrap_stub_v2(payload: bytes) -> bytes:
    mark = payload[:2]
    if mark in _V2_PACKED:
        raise UnframedError(is_compressed=True)
    # A server with `compress migrate` pushes this framing, and frames nothing itself.
    return payload[2:] if mark in (_V2_PLAIN, _V2_PLAIN_OPENVPN) else payload


WRAPPERS: Final[Mapping[Framing, Callable[[bytes], bytes]]] = {
    "comp-lzo": _wrap_comp_lzo,
    "stub": _wrap_stub,
    "stub-v2": _wrap_stub_v2,
}
"""Frame a payload of 1 byte or more. `none` has no entry."""

UNWRAPPERS: Final[Mapping[Framing, Callable[[bytes], bytes]]] = {
    "comp-lzo": _unwrap_comp_lzo,
    "stub": _unwrap_stub,
    "stub-v2": _unwrap_stub_v2,
}
"""Take the framing off a payload; they raise UnframedError. `none` has no entry."""
