"""The answer to a packet that is too large for the path and must not be cut, on behalf of its destination.

Source: RFC 792, RFC 1191 and RFC 1812, 4.3.2 (ICMP type 3, code 4); RFC 4443, 2.4 and 3.2 (ICMPv6 type 2).
Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from typing import Final

from bridged.checksum import checksum_octets, swapped, word_sum
from bridged.dataplane.portable.headers.segment import IPV4, IPV6, network_offset

IPV6_LEAST_MTU: Final = 1280
IPV4_QUOTED: Final = 576 - 28
"""An ICMP error is no longer than what every IPv4 host takes whole."""
IPV6_QUOTED: Final = IPV6_LEAST_MTU - 48

_ICMP: Final = 1
_ICMPV6: Final = 58
_IPV4_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_DONT_FRAGMENT: Final = 0x4000
_OFFSET_MASK: Final = 0x1FFF
_EXTENSIONS: Final = frozenset({0, 43, 60})
_EXTENSIONS_MOST: Final = 8
_FRAGMENT: Final = 44


def answer(frame: bytes, fit: int) -> bytes | None:
    """The answer to a frame of which `fit` bytes would cross.

    None: it gets no answer, and travels as any other. That is what may be cut on the way, goes to a group,
    is an ICMP error itself or a later fragment, or is as small as its protocol allows.
    """
    at, ethertype = network_offset(frame)
    if len(frame) < at + 40 or (frame[0] | frame[6]) & 1 or fit < at:
        return None
    if ethertype == IPV4:
        found = _answer_ipv4(frame[at:], fit - at)
    elif ethertype == IPV6:
        found = _answer_ipv6(frame[at:], max(fit - at, IPV6_LEAST_MTU))
    else:
        return None
    return None if found is None else frame[6:12] + frame[:6] + frame[12:at] + found


def _answer_ipv4(packet: bytes, mtu: int) -> bytes | None:
    header = (packet[0] & 0x0F) * 4
    total, _, flags = struct.unpack_from("!HHH", packet, 2)
    if total <= mtu or total > len(packet) or packet[0] >> 4 != 4 or header < 20:
        return None
    if not flags & _DONT_FRAGMENT or flags & _OFFSET_MASK:
        return None
    if packet[9] == _ICMP and packet[header] in _IPV4_ERRORS:
        return None
    # 0, 127, groups and broadcasts are nobody's address.
    if any(first in {0, 127} or first >= 224 for first in (packet[12], packet[16])):
        return None
    message = struct.pack("!BBHHH", 3, 4, 0, 0, min(mtu, 65535)) + packet[: min(total, IPV4_QUOTED)]
    message = message[:2] + checksum_octets(word_sum(message)) + message[4:]
    # Precedence 6, as RFC 1812 has it for errors.
    head = struct.pack("!BBHIBBH", 0x45, 0xC0, 20 + len(message), 0, 64, _ICMP, 0)
    head += packet[16:20] + packet[12:16]
    return head[:10] + checksum_octets(word_sum(head)) + head[12:] + message


def _answer_ipv6(packet: bytes, mtu: int) -> bytes | None:
    total = 40 + int.from_bytes(packet[4:6], "big")
    if total <= mtu or total > len(packet) or packet[0] >> 4 != 6 or _is_error_or_part(packet):
        return None
    # No answer to or from a group, or to the unspecified address.
    if packet[8] == 0xFF or packet[24] == 0xFF or not any(packet[8:24]):
        return None
    message = struct.pack("!BBHI", 2, 0, 0, mtu) + packet[: min(total, IPV6_QUOTED)]
    addresses = packet[24:40] + packet[8:24]
    pseudo = word_sum(addresses) + swapped(len(message)) + swapped(_ICMPV6)
    message = message[:2] + checksum_octets(pseudo + word_sum(message)) + message[4:]
    return struct.pack("!IHBB", 0x60000000, len(message), _ICMPV6, 64) + addresses + message


def _is_error_or_part(packet: bytes) -> bool:
    """Whether an IPv6 packet is an ICMPv6 error or a redirect, or a fragment other than the first."""
    following, at = packet[6], 40
    for _ in range(_EXTENSIONS_MOST):
        if following == _ICMPV6:
            kind = packet[at] if at < len(packet) else 0
            return kind < 128 or kind == 137
        if following == _FRAGMENT:
            if int.from_bytes(packet[at + 2 : at + 4], "big") >> 3:
                return True
        elif following not in _EXTENSIONS:
            return False
        if at + 8 > len(packet):
            return True
        octets = 8 if following == _FRAGMENT else (packet[at + 1] + 1) * 8
        following, at = packet[at], at + octets
    # Nobody who wants an answer sends more headers than that.
    return True
