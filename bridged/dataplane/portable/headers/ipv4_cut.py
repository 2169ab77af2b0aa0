"""Cuts an IPv4 packet that may be cut (no DF) into IP fragments, as a router in front of a smaller link does.

Source: RFC 791, 3.2 (fragmentation); RFC 1812, 4.2.2.7. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from typing import Final

from bridged.checksum import checksum_octets, word_sum
from bridged.dataplane.portable.headers.segment import IPV4, network_offset

LEAST_PAYLOAD: Final = 64
"""Bytes that a fragment carries at least: less is no path."""

_HEADER: Final = 20
_UNIT: Final = 8
_DONT_FRAGMENT: Final = 0x4000
_MORE_FRAGMENTS: Final = 0x2000
_OFFSET_MASK: Final = 0x1FFF


def cut_ipv4(frame: bytes, fit: int) -> list[bytes] | None:
    """The fragments of a frame of which `fit` bytes cross, as frames in order.

    None: it is no IPv4 packet, must not be cut, has options, or fits.
    """
    at, ethertype = network_offset(frame)
    # Options would need a look at each (some are not copied): hardly any packet has them.
    if ethertype != IPV4 or len(frame) < at + _HEADER or frame[at] != 0x45:
        return None
    total, _, flags = struct.unpack_from("!HHH", frame, at + 2)
    payload = total - _HEADER
    if flags & _DONT_FRAGMENT or payload < 0 or at + total > len(frame) or at + total <= fit:
        return None
    room = (fit - at - _HEADER) // _UNIT * _UNIT
    if room < LEAST_PAYLOAD or (flags & _OFFSET_MASK) * _UNIT + payload > 65535:
        return None
    # As many as needed, of about equal size: a small last one would cost as much.
    count = -(-payload // room)
    step = (-(-payload // count) + _UNIT - 1) // _UNIT * _UNIT
    first = at + _HEADER
    return [
        frame[:at]
        + _header(frame[at:first], flags, start, min(step, payload - start), payload)
        + frame[first + start : first + min(start + step, payload)]
        for start in range(0, payload, step)
    ]


def _header(header: bytes, flags: int, start: int, carried: int, payload: int) -> bytes:
    """The IP header of the fragment that carries `carried` bytes from `start` of the payload on."""
    more = flags & _MORE_FRAGMENTS if start + carried == payload else _MORE_FRAGMENTS
    field = flags & 0x8000 | more | (flags & _OFFSET_MASK) + start // _UNIT
    changed = header[:2] + struct.pack("!H", _HEADER + carried) + header[4:6] + struct.pack("!H", field)
    changed += header[8:10]
    return changed + checksum_octets(word_sum(changed + header[12:])) + header[12:]
