"""The UDP socket of a tunnel: batched sending and receiving, and everything that may go wrong with it.

Source: udp(7) (UDP_SEGMENT, UDP_GRO), ip(7), ipv6(7), socket(7) (SO_RXQ_OVFL).
All system calls on the socket are here. Nothing the network does raises from `receive` or `send`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NoReturn

from bridged.addresses import Endpoint
from bridged.dataplane.portable.control.counters import BatchSizes
from bridged.dataplane.portable.transport.addresses import (
    IP_PKTINFO,
    AncillaryItem,
    SockAddress,
    pin_of,
    to_endpoint,
    to_sockaddr,
    traffic_class,
)
from bridged.errors import DataplaneError
from bridged.units import Octets

MAX_DATAGRAM_OCTETS: Final = 65535
MAX_SEGMENTS: Final = 64
MAX_BATCH_OCTETS: Final = 65000
"""Of one UDP_SEGMENT send: an IP packet, less its headers and the largest options."""
SEGMENT_RETRY_SECONDS: Final = 30.0
"""After a failed UDP_SEGMENT send, segments of that size go singly for so long."""
SEND_WAIT_MILLISECONDS: Final = 5
PINS_REMEMBERED: Final = 4096

_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_RECVPKTINFO: Final = 49
_PMTUDISC_DONT: Final = 0
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_SO_RXQ_OVFL: Final = 40
ANCILLARY_OCTETS: Final = 256
_U32: Final = struct.Struct("=I")
_SEGMENT_CAUSES: Final = {errno.EIO: "eio", errno.EINVAL: "einval", errno.EMSGSIZE: "emsgsize"}
_DROP_REASONS: Final = {
    errno.EAGAIN: "udp_send_full",
    errno.ENOBUFS: "udp_send_full",
    errno.ENOMEM: "udp_send_full",
    errno.EMSGSIZE: "emsgsize",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.EAFNOSUPPORT: "unreachable",
    errno.ENODEV: "unreachable",
    errno.ECONNREFUSED: "refused",
    errno.EPERM: "refused",
}


@dataclass(slots=True)
class Path:
    """Where a peer is, as the socket sees it, and what its path bears.

    `pin`: the local address to answer from, and `awaited`: the ancillary messages that single datagrams to
    there have. Segments above `segment_limit` octets are sent singly until `retry_at` (monotonic seconds).
    """

    address: SockAddress
    pin: AncillaryItem | None = None
    awaited: list[AncillaryItem] = field(default_factory=list)
    segment_limit: int = MAX_DATAGRAM_OCTETS
    retry_at: float = 0.0


Received = tuple[bytes, int, SockAddress, AncillaryItem | None]
"""One read of the socket: octets, size, source, pin of the answer.

The octets are datagrams of `size` each (the last may be shorter), end to end.
"""


class Wire:
    """The socket; see the module. `drop` counts lost datagrams by direction and reason.

    `bind` None: the socket is made for the family of the first destination, and made anew for the
    other family when that is needed. `recvmsg`, `sendto` and `sendmsg` are the socket's own.
    """

    recvmsg: Callable[..., tuple[bytes, list[AncillaryItem], int, SockAddress]]
    sendto: Callable[..., int]
    sendmsg: Callable[..., int]

    def __init__(self, bind: Endpoint | None, buffer: Octets, drop: Callable[[str, int], None]) -> None:
        self._bind = bind
        self._buffer = buffer
        self._drop = drop
        self._socket: socket.socket | None = None
        self._overflow = 0
        self._overflow_before = 0
        self._pins: OrderedDict[SockAddress, AncillaryItem] = OrderedDict()
        # The last packet information and what it meant: it seldom changes.
        self._information: AncillaryItem = (0, 0, b"")
        self._pin: AncillaryItem | None = None
        self.family = 0
        self._unplug()
        self.has_segment = False
        self.has_gro = False
        self.fallbacks: dict[tuple[str, str], int] = {}
        self.before_close: Callable[[], None] = lambda: None
        self.segments_per_send = BatchSizes()
        self.datagrams_per_receive = BatchSizes()

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    @property
    def overflow(self) -> int:
        """Datagrams that the kernel dropped because the receive buffer was full."""
        return self._overflow_before + self._overflow

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def open(self) -> None:
        """Bind. Where there is nothing to bind to, wait for `ensure`.

        Raises:
            DataplaneError: `bind_failed`.
        """
        if self._bind is None:
            return
        family = socket.AF_INET6 if self._bind.is_ipv6 else socket.AF_INET
        try:
            self._socket = self._opened(family)
            self._socket.bind(to_sockaddr(self._bind, family))
        except OSError as error:
            self.close()
            raise DataplaneError("bind_failed", f"cannot bind UDP {self._bind}: {error.strerror}") from None

    def ensure(self, destination: Endpoint) -> bool:
        """Have a socket that can reach `destination`; whether a new one was made for it."""
        if self._bind is not None or self._reaches(destination):
            return False
        self.close()
        family = socket.AF_INET6 if destination.is_ipv6 else socket.AF_INET
        try:
            self._socket = self._opened(family)
        except OSError as error:
            raise DataplaneError(
                "bind_failed", f"no UDP socket for {destination}: {error.strerror}"
            ) from None
        return True

    def adopt(self, descriptor: int | None) -> None:
        """Go on with a socket that somebody else has opened and bound; None: with none.

        Raises:
            DataplaneError: `system`.
        """
        adopted = None if descriptor is None else self._adopted(descriptor)
        self.close()
        if adopted is not None:
            self._socket = adopted
            self.family = adopted.family
            self.recvmsg, self.sendto, self.sendmsg = adopted.recvmsg, adopted.sendto, adopted.sendmsg

    def _adopted(self, descriptor: int) -> socket.socket:
        try:
            copy = os.dup(descriptor)
            try:
                sock = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                raise
            sock.setblocking(False)
            self._set_common(sock, sock.family)
        except OSError as error:
            raise DataplaneError("system", f"cannot use the UDP socket: {error.strerror}") from None
        return sock

    def close(self) -> None:
        if self._socket is not None:
            self.before_close()
            self._overflow_before += self._overflow
            self._overflow = 0
            self._unplug()
            self._socket.close()
            self._socket = None
            self._pins.clear()

    @property
    def local_endpoint(self) -> Endpoint | None:
        if self._socket is None:
            return None
        endpoint = to_endpoint(self._socket.getsockname())
        return endpoint if endpoint.port else None

    def path(self, endpoint: Endpoint) -> Path:
        """The path to an endpoint, answering from the address it last wrote to.

        Raises:
            OSError: an address that this socket cannot send to.
        """
        address = to_sockaddr(endpoint, self.family or socket.AF_INET6)
        return Path(address, self._pins.get(address))

    def remember_pin(self, received: Received) -> None:
        """Answer this source from the address that it wrote to. Holds PINS_REMEMBERED sources."""
        _, _, source, pin = received
        if pin is None:
            return
        self._pins[source] = pin
        self._pins.move_to_end(source)
        if len(self._pins) > PINS_REMEMBERED:
            self._pins.popitem(last=False)

    def receive(self) -> Received | None:
        """The next datagrams of one source, or None where none wait."""
        try:
            data, ancillary, _, source = self.recvmsg(MAX_DATAGRAM_OCTETS, ANCILLARY_OCTETS)
        except OSError as error:
            self.failed(error)
            return None
        return self.sorted(data, ancillary, source)

    def failed(self, error: OSError) -> None:
        """A read gave nothing: none wait, or an ICMP error of an earlier datagram, which concerns nobody."""
        if not isinstance(error, BlockingIOError):
            self._drop(_DROP_REASONS.get(error.errno or 0, "io_error"), 0)

    def sorted(self, data: bytes, ancillary: list[AncillaryItem], source: SockAddress) -> Received:
        """What a read gave, its ancillary messages understood."""
        size = len(data)
        pin = None
        for item in ancillary:
            level, kind, value = item
            if kind == _UDP_GRO and level == socket.IPPROTO_UDP:
                size = int.from_bytes(value[:4], "little")
            elif kind == _SO_RXQ_OVFL and level == socket.SOL_SOCKET:
                self._overflow = _U32.unpack(value)[0]
            elif item == self._information:
                pin = self._pin
            else:
                pin = pin_of(level, kind, value)
                self._information, self._pin = item, pin
        self.datagrams_per_receive.observe(-(-len(data) // size) if size else 1)
        return data, size, source, pin

    def awaited(self, pin: AncillaryItem | None) -> list[AncillaryItem]:
        """The ancillary messages of a single datagram whose answer has this pin, just received."""
        return [] if pin is None else [self._information]

    def send(self, packets: Sequence[bytes], path: Path, now: float, octet: int = 0) -> int:
        """Send datagrams to one peer in order; how many octets the socket took.

        `octet`: traffic class (TOS) of the outer IP headers. Runs of equal size go in one system call. What
        the socket refuses is counted as dropped.
        """
        if self._socket is None:
            self._drop("unreachable", len(packets))
            return 0
        if path.segment_limit < MAX_DATAGRAM_OCTETS and now >= path.retry_at:
            path.segment_limit = MAX_DATAGRAM_OCTETS
        mark = traffic_class(octet, path.address) if octet else None
        if len(packets) == 1:
            return self.send_one(packets[0], path, mark)
        taken = 0
        at = 0
        sizes = list(map(len, packets))
        while at < len(packets):
            end = self._end_of_run(sizes, at, path.segment_limit)
            run = packets[at:end]
            if len(run) == 1:
                taken += self.send_one(run[0], path, mark)
            else:
                taken += self._send_run(run, path, now, mark)
            at = end
        return taken

    def send_to(self, datagram: bytes, endpoint: Endpoint) -> None:
        """Send one control datagram."""
        try:
            path = self.path(endpoint)
        except OSError as error:
            self._drop(_DROP_REASONS.get(error.errno or 0, "io_error"), 1)
            return
        if self._socket is None:
            self._drop("unreachable", 1)
            return
        self.send_one(datagram, path)

    def _end_of_run(self, sizes: list[int], at: int, segment_limit: int) -> int:
        size = sizes[at]
        end = at + 1
        if not self.has_segment or size > segment_limit:
            return end
        most = min(len(sizes), at + MAX_SEGMENTS, at + MAX_BATCH_OCTETS // size)
        while end < most and sizes[end] == size:
            end += 1
        if end < most and sizes[end] < size:
            end += 1
        return end

    def _send_run(self, run: Sequence[bytes], path: Path, now: float, mark: AncillaryItem | None) -> int:
        size = len(run[0])
        segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, size.to_bytes(2, "little"))
        number = self._try(run, path, [segment] if mark is None else [segment, mark])
        if number == 0:
            self.segments_per_send.observe(len(run))
            return sum(map(len, run))
        cause = _SEGMENT_CAUSES.get(number)
        if cause is None:
            self._drop(_DROP_REASONS.get(number, "io_error"), len(run))
            return 0
        key = ("udp_gso", cause)
        self.fallbacks[key] = self.fallbacks.get(key, 0) + 1
        # What has no segmentation at all says EIO; else it was too large (EINVAL on older kernels).
        path.segment_limit = 0 if cause == "eio" else min(path.segment_limit, size - 1)
        path.retry_at = now + SEGMENT_RETRY_SECONDS
        return sum(self.send_one(packet, path, mark) for packet in run)

    def send_one(self, packet: bytes, path: Path, mark: AncillaryItem | None = None) -> int:
        """Send one datagram, with a traffic class or without; how many octets the socket took."""
        pin = path.pin
        try:
            if mark is not None:
                self.sendmsg((packet,), (mark,) if pin is None else (mark, pin), 0, path.address)
            elif pin is None:
                self.sendto(packet, path.address)
            else:
                self.sendmsg((packet,), (pin,), 0, path.address)
        except OSError:
            number = self._try((packet,), path, [] if mark is None else [mark])
        else:
            number = 0
        if number:
            self._drop(_DROP_REASONS.get(number, "io_error"), 1)
            return 0
        self.segments_per_send.observe(1)
        return len(packet)

    def _try(self, packets: Sequence[bytes], path: Path, unpinned: list[AncillaryItem]) -> int:
        """Send; 0, or the errno. Unpins the path where its local address has gone."""
        ancillary = unpinned if path.pin is None else [*unpinned, path.pin]
        number = self._sendmsg(packets, ancillary, path.address)
        if number in (errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH) and path.pin is not None:
            again = self._sendmsg(packets, unpinned, path.address)
            if again != number:
                # The address went away with its link or lease; the kernel chooses another.
                path.pin = None
                self._pins.pop(path.address, None)
                return again
        return number

    def _sendmsg(self, packets: Sequence[bytes], ancillary: list[AncillaryItem], address: SockAddress) -> int:
        sock = self._socket
        if sock is None:
            return errno.ENETDOWN
        for attempt in range(2):
            try:
                self.sendmsg(packets, ancillary, 0, address)
                return 0
            except BlockingIOError:
                if attempt or not self._wait_for_room(sock):
                    return errno.EAGAIN
            except OSError as error:
                return error.errno or errno.EIO
        return errno.EAGAIN

    @staticmethod
    def _wait_for_room(sock: socket.socket) -> bool:
        """Let the socket drain for a moment: what waits meanwhile in the TAP's queue is not lost."""
        waiting = select.poll()
        waiting.register(sock, select.POLLOUT)
        return bool(waiting.poll(SEND_WAIT_MILLISECONDS))

    def _reaches(self, destination: Endpoint) -> bool:
        return self._socket is not None and (self.family == socket.AF_INET6) == destination.is_ipv6

    def _opened(self, family: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            self.family = family
            any_address = self._bind is not None and self._bind.host in ("0.0.0.0", "::")
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if any_address else 1)
            if self._bind is not None and not any_address:
                # The address may appear later, with its link or its lease.
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            self._set_common(sock, family)
            if any_address:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
                else:
                    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        except OSError:
            sock.close()
            raise
        self.recvmsg, self.sendto, self.sendmsg = sock.recvmsg, sock.sendto, sock.sendmsg
        return sock

    def _set_common(self, sock: socket.socket, family: int) -> None:
        self._set_buffers(sock)
        self._set_no_discovery(sock, family)
        self._set_offloads(sock)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)

    def _unplug(self) -> None:
        """The calls of the socket, bound once; without a socket they fail as if the network were down."""
        self.recvmsg = self.sendto = self.sendmsg = _network_is_down

    def _set_buffers(self, sock: socket.socket) -> None:
        for forced, plain in (
            (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
            (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
        ):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, self._buffer)
            except OSError:
                sock.setsockopt(socket.SOL_SOCKET, plain, self._buffer)

    @staticmethod
    def _set_no_discovery(sock: socket.socket, family: int) -> None:
        """Have large datagrams fragmented, as OpenVPN has them, instead of dropped."""
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
        if family == socket.AF_INET6:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)

    def _set_offloads(self, sock: socket.socket) -> None:
        self.has_segment = self._accepts(sock, _UDP_SEGMENT, 0)
        self.has_gro = self._accepts(sock, _UDP_GRO, 1)
        for name, present in (("udp_gso", self.has_segment), ("udp_gro", self.has_gro)):
            if not present:
                self.fallbacks[name, "einval"] = self.fallbacks.get((name, "einval"), 0) + 1

    @staticmethod
    def _accepts(sock: socket.socket, option: int, value: int) -> bool:
        try:
            sock.setsockopt(socket.IPPROTO_UDP, option, value)
        except OSError:
            return False
        return True


def _network_is_down(*_: object) -> NoReturn:
    raise OSError(errno.ENETDOWN, "no socket")
