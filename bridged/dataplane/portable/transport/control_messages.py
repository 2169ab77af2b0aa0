"""Control messages of a datagram: its traffic class, and the address that it leaves from (pinned source).

Source: ip(7), ipv6(7), RFC 3542, section 6. Pure.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

from bridged.socket_addresses import SockAddress, StreamAddress

IP_PKTINFO: Final = 8
IPV6_PKTINFO: Final = 50
_IN_PKTINFO: Final = struct.Struct("=I4s4s")
_IN6_PKTINFO: Final = struct.Struct("=16sI")

AncillaryItem = tuple[int, int, bytes]


def traffic_class(octet: int, address: SockAddress | StreamAddress) -> AncillaryItem:
    """The control message that gives a datagram to `address` this TOS or traffic class."""
    value = octet.to_bytes(4, sys.byteorder)
    if len(address) == 2 or address[0].startswith("::ffff:"):
        # IPv4 has its own message, also if it is mapped on an IPv6 socket.
        return socket.IPPROTO_IP, socket.IP_TOS, value
    return socket.IPPROTO_IPV6, socket.IPV6_TCLASS, value


def pinned_source_of(level: int, kind: int, data: bytes) -> AncillaryItem | None:
    """The message that makes an answer leave from the address that a received packet-information message
    names.

    Only the address is pinned, not the interface: routing may be asymmetric. None: it is another message.
    """
    if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
        _, local, _ = _IN_PKTINFO.unpack_from(data)
        return socket.IPPROTO_IP, IP_PKTINFO, _IN_PKTINFO.pack(0, local, bytes(4))
    if level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
        local, index = _IN6_PKTINFO.unpack_from(data)
        # A link-local address means nothing without its interface.
        return (
            socket.IPPROTO_IPV6,
            IPV6_PKTINFO,
            _IN6_PKTINFO.pack(local, index if local[:2] == b"\xfe\x80" else 0),
        )
    return None
