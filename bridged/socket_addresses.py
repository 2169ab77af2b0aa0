"""Endpoints as socket addresses, and back.

No I/O except looking up interfaces by name (the `%zone` of link-local addresses).
"""

from __future__ import annotations

import errno
import socket
from typing import Literal

from bridged.addresses import Endpoint

SockAddress = tuple[str, int] | tuple[str, int, int, int]
"""What `sendmsg` takes and `recvmsg` returns, in the socket's own family."""
StreamAddress = tuple[str, int, Literal["tcp"]]
"""Names the far end of a TCP connection; never equal to a `SockAddress`."""


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


def to_endpoint(address: SockAddress | StreamAddress) -> Endpoint:
    """The endpoint of a socket address, as `to_sockaddr` made it, or of a TCP connection."""
    host, port = address[0], address[1]
    if len(address) == 3:
        return Endpoint(host, port, address[2])
    if len(address) == 4 and address[3] and "%" not in host:
        try:
            host = f"{host}%{socket.if_indextoname(address[3])}"
        except OSError:
            host = f"{host}%{address[3]}"
    return Endpoint.of(host, port)
