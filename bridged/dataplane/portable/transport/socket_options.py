"""Opens the UDP socket of a tunnel, with every option that it needs.

Source: udp(7) (UDP_SEGMENT, UDP_GRO), ip(7), ipv6(7), socket(7) (SO_RXQ_OVFL).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

from bridged.addresses import Endpoint
from bridged.dataplane.portable.transport.control_messages import IP_PKTINFO
from bridged.units import Octets

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SO_RXQ_OVFL: Final = 40

_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_RECVPKTINFO: Final = 49
_PMTUDISC_DONT: Final = 0
_PMTUDISC_PROBE: Final = 3
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33


def open_socket(family: int, bind: Endpoint | None, buffer: Octets) -> socket.socket:
    """A new UDP socket, not bound yet; `bind` says what it will be bound to (None: nothing).

    Raises:
        OSError: no such socket here.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        any_address = bind is not None and bind.host in ("0.0.0.0", "::")
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if any_address else 1)
        if bind is not None and not any_address:
            # The address may appear later, with its link or its lease.
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        set_common_options(sock, buffer)
        if any_address:
            _ask_for_local_addresses(sock, family)
    except OSError:
        sock.close()
        raise
    return sock


def set_common_options(sock: socket.socket, buffer: Octets) -> None:
    """Options of every UDP socket that we send through, whoever opened it. `buffer`: bytes each way."""
    _set_buffers(sock, buffer)
    forbid_fragments(sock, is_forbidden=False)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)


def forbid_fragments(sock: socket.socket, *, is_forbidden: bool) -> None:
    """Let nobody cut large datagrams from now on, this host included and whatever MTU it has heard of; or let
    everybody, as OpenVPN does, instead of losing them.
    """
    mode = _PMTUDISC_PROBE if is_forbidden else _PMTUDISC_DONT
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, mode)
    if sock.family == socket.AF_INET6:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, mode)


def accepts(sock: socket.socket, option: int, value: int) -> bool:
    """Set an option of UDP; False if this kernel does not have it."""
    try:
        sock.setsockopt(socket.IPPROTO_UDP, option, value)
    except OSError:
        return False
    return True


def _ask_for_local_addresses(sock: socket.socket, family: int) -> None:
    """Each read says which local address it came to: answers leave from there."""
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _set_buffers(sock: socket.socket, buffer: Octets) -> None:
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, buffer)
        except OSError:
            # Without CAP_NET_ADMIN: as much as the host allows.
            sock.setsockopt(socket.SOL_SOCKET, plain, buffer)
