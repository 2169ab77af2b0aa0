"""The UDP socket through which a client calls a server, until the data plane borrows it.

Source: ip(7) (IP_RECVERR), ipv6(7), RFC 1122, section 4.1.3.3 (an ICMP error reaches the sender).
Asyncio. Anybody who knows addresses and ports can forge ICMP messages: they are a hint, never a proof.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bridged.addresses import Endpoint
from bridged.errors import DataplaneError
from bridged.socket_addresses import SockAddress, to_endpoint, to_sockaddr
from bridged.supervision import SUPERVISOR

DATAGRAM_OCTETS: Final = 65535
DATAGRAMS_PER_TURN: Final = 64
ERRORS_PER_TURN: Final = 16
_ANCILLARY_OCTETS: Final = 512
_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_DONT: Final = 0
_UDP_GRO: Final = 104
_EXTENDED_ERROR: Final = struct.Struct("=IBBBxII")
_FROM_NETWORK: Final = (2, 3)
"""SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6."""
_PASSING: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMSGSIZE, errno.EINTR})
_WORDS: Final = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.EACCES: "administratively prohibited",
    errno.EPERM: "forbidden by this host's firewall",
    errno.ENETDOWN: "network down",
    errno.EADDRNOTAVAIL: "no local address to send from",
}

OnDatagram = Callable[["CallSocket", bytes, Endpoint], None]
OnRefused = Callable[["CallSocket", Endpoint, str], None]


class CallSocket:
    """A socket bound to `local`, or to a port that the kernel chooses.

    `on_datagram` gets what arrives. `on_refused` gets endpoint and reason when sending failed or the network
    reports that nothing arrives there. Neither is called while the socket is lent.

    Raises:
        DataplaneError: `bind_failed`.
    """

    def __init__(
        self,
        family: int,
        local: Endpoint | None,
        on_datagram: OnDatagram,
        on_refused: OnRefused,
        subject: str,
    ) -> None:
        self.is_fixed = local is not None
        self.is_lent = False
        self._family = family
        self._on_datagram = on_datagram
        self._on_refused = on_refused
        self._read = SUPERVISOR.guard("call_socket", self._take, subject)
        try:
            self._socket = socket.socket(
                family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
        except OSError as error:
            raise DataplaneError("bind_failed", f"no UDP socket: {error.strerror}") from None
        try:
            self._prepare(local)
        except OSError as error:
            self._socket.close()
            raise DataplaneError("bind_failed", f"cannot bind UDP {local}: {error.strerror}") from None
        self._listen()

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def can_reach(self, endpoint: Endpoint) -> bool:
        """Whether this socket's address family can reach it."""
        return self._family == socket.AF_INET6 or not endpoint.is_ipv6

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        """Send, also while the socket is lent. What cannot be sent is lost; the session repeats it."""
        if not self.is_open:
            return
        try:
            self._socket.sendmsg(
                [datagram], self._hops(destination), 0, to_sockaddr(destination, self._family)
            )
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                # An ICMP error caused by an earlier datagram; the error queue has the details.
                return
            if error.errno not in _PASSING:
                self._on_refused(self, destination, _words(error.errno or 0))

    def _hops(self, destination: Endpoint) -> list[tuple[int, int, bytes]]:
        """One hop less than usual, so that no kernel joins data to a control packet (docs/decisions/0024)."""
        if destination.is_ipv6:
            own = self._socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
            return [(socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("i", own - 1))]
        own = self._socket.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
        return [(socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", own - 1))]

    def lend(self) -> int:
        """Stop reading. Returns the descriptor, for the data plane, until `reclaim`."""
        self._stop_listening()
        self.is_lent = True
        # A full error queue would wake every poll of the socket.
        self._report_errors(False)
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self._socket.fileno()

    def reclaim(self) -> None:
        """Read again: the data plane no longer does."""
        if not self.is_lent or not self.is_open:
            return
        self.is_lent = False
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 0)
        self._listen()

    def close(self) -> None:
        """Idempotent."""
        if self.is_open:
            if not self.is_lent:
                self._stop_listening()
            self._socket.close()

    # --- inside -----------------------------------------------------------------------------------

    def _prepare(self, local: Endpoint | None) -> None:
        sock = self._socket
        is_any = local is not None and local.host in ("0.0.0.0", "::")
        if self._family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_any else 1)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
            if self._family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
        if local is None:
            return
        if not is_any:
            # The address may appear later, with its link or lease.
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if self._family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        sock.bind(to_sockaddr(local, self._family))

    def _listen(self) -> None:
        self._report_errors(True)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _stop_listening(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def _report_errors(self, is_on: bool) -> None:
        """Switching it off empties the error queue."""
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, int(is_on))
            if self._family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, int(is_on))

    def _take(self) -> None:
        for _ in range(DATAGRAMS_PER_TURN):
            # An earlier datagram may have caused the socket to be lent or closed.
            if self.is_lent or not self.is_open:
                return
            try:
                datagram, source = self._socket.recvfrom(DATAGRAM_OCTETS)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error: read from the error queue below.
                continue
            self._on_datagram(self, datagram, to_endpoint(source))
        self._take_errors()

    def _take_errors(self) -> None:
        for _ in range(ERRORS_PER_TURN):
            if self.is_lent or not self.is_open:
                return
            try:
                _, ancillary, _, target = self._socket.recvmsg(0, _ANCILLARY_OCTETS, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for level, kind, value in ancillary:
                if (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                    self._report_error(value, target)

    def _report_error(self, value: bytes, target: SockAddress) -> None:
        if len(value) < _EXTENDED_ERROR.size or not target:
            return
        number, origin, _, _, _, _ = _EXTENDED_ERROR.unpack_from(value)
        if origin not in _FROM_NETWORK or number in _PASSING:
            return
        reporter = _offender(value[_EXTENDED_ERROR.size :])
        where, words = to_endpoint(target), _words(number)
        if reporter and reporter != where.host:
            words = f"{words}, says {reporter}"
        self._on_refused(self, where, words)


def _words(number: int) -> str:
    return _WORDS.get(number) or os.strerror(number).lower()


def _offender(address: bytes) -> str:
    """The address that sent the ICMP message; empty where unknown."""
    if len(address) < 8:
        return ""
    (family,) = struct.unpack_from("=H", address)
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[4:8])
    if family == socket.AF_INET6 and len(address) >= 24:
        return Endpoint.of(socket.inet_ntop(socket.AF_INET6, address[8:24]), 0).host
    return ""
