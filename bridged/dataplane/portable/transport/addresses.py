"""Endpoints as socket addresses, and the control messages that pin the local address (the pinned source).

Source: ip(7), ipv6(7), RFC 3542, section 6.
No I/O except looking up interfaces by name (the `%zone` of link-local addresses).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Final

from bridged.addresses import Endpoint

IP_PKTINFO: Final = 8
IPV6_PKTINFO: Final = 50
_IN_PKTINFO: Final = struct.Struct("=I4s4s")
_IN6_PKTINFO: Final = struct.Struct("=16sI")

SockAddress = tuple[str, int] | tuple[str, int, int, int]
"""What `sendmsg` takes and `recvmsg` returns, in the socket's own family."""

AncillaryItem = tuple[int, int, bytes]


def to_sockaddr(endpoint: Endpoint, family: int) -> SockAddress:
    """The endpoint as an address of the socket's family; on an IPv6 socket, IPv4 is mapped.

    Raises:
        OSError: EAFNOSUPPORT for IPv6 on an IPv4 socket; ENODEV for an unknown zone.
    """
    if family == socket.AF_INET:
        if endpoint.is_ipv6:
            raise OSError(errno.EAFNOSUPPORT, f"{endpoint} cannot be reached from an IPv4 socket")
        return endpoint.host, endpoint.port
    if not endpoint.is_ipv6:
        return f"::ffff:{endpoint.host}", endpoint.port, 0, 0
    host, _, zone = endpoint.host.partition("%")
    scope = 0
    if zone:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host)), endpoint.port, 0, scope


def to_endpoint(address: SockAddress) -> Endpoint:
    """The endpoint of a socket address, as `to_sockaddr` made it."""
    host, port = address[0], address[1]
    if len(address) == 4 and address[3] and "%" not in host:
        try:
            host = f"{host}%{socket.if_indextoname(address[3])}"
        except OSError:
            host = f"{host}%{address[3]}"
    return Endpoint.of(host, port)


def traffic_class(octet: int, address: SockAddress) -> AncillaryItem:
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
