"""UDP as the transport of a tunnel: one socket, batched sends and reads, and what may go wrong with them.

Source: udp(7) (UDP_SEGMENT, UDP_GRO), ip(7), ipv6(7), socket(7) (SO_RXQ_OVFL).
All system calls on the socket are here, its options in `socket_options`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from bridged.addresses import Endpoint
from bridged.dataplane.portable.control.counters import BatchSizes
from bridged.dataplane.portable.transport.control_messages import (
    AncillaryItem,
    pinned_source_of,
    traffic_class,
)
from bridged.dataplane.portable.transport.errors import BATCH_REFUSALS, SOURCE_GONE, drop_reason
from bridged.dataplane.portable.transport.seam import MAX_DATAGRAM_OCTETS, Path, PeerAddress, Received
from bridged.dataplane.portable.transport.socket_options import (
    SO_RXQ_OVFL,
    UDP_GRO,
    UDP_SEGMENT,
    accepts,
    forbid_fragments,
    open_socket,
    set_common_options,
)
from bridged.errors import DataplaneError
from bridged.socket_addresses import SockAddress, to_endpoint, to_sockaddr
from bridged.units import Octets

MAX_SEGMENTS: Final = 64
MAX_BATCH_OCTETS: Final = 65000
"""Of one UDP_SEGMENT send: an IP packet, less its headers and the largest options."""
SEGMENT_RETRY_SECONDS: Final = 30.0
"""After a failed UDP_SEGMENT send, packets of that size go singly for this long."""
SEND_WAIT_MILLISECONDS: Final = 5
SOURCES_REMEMBERED: Final = 4096
ANCILLARY_OCTETS: Final = 256

_U32: Final = struct.Struct("=I")


class UdpTransport:
    """The socket of one tunnel; see `Transport`. `drop(reason, datagrams)` hears of losses.

    `bind` None: the socket is made for the family of the first destination, and replaced when the other
    family is needed. `overflow`: datagrams that the kernel dropped because the receive buffer was full.
    `before_close` is called before a socket goes away.
    """

    is_stream = False

    _recvmsg: Callable[..., tuple[bytes, list[AncillaryItem], int, SockAddress]]
    _sendto: Callable[..., int]
    _sendmsg: Callable[..., int]

    def __init__(
        self,
        bind: Endpoint | None,
        buffer: Octets,
        drop: Callable[[str, int], None],
        batch_sizes: Mapping[str, BatchSizes],
    ) -> None:
        self._bind = bind
        self._buffer = buffer
        self._drop = drop
        self._socket: socket.socket | None = None
        self._overflow = 0
        self._overflow_before = 0
        self._sources: OrderedDict[PeerAddress, AncillaryItem] = OrderedDict()
        # Single datagrams mostly have the same ancillary messages as the one before; what they meant.
        self._usual: list[AncillaryItem] = []
        self._usual_source: AncillaryItem | None = None
        self._family: int = socket.AF_INET6
        """Of the socket, or of the latest one."""
        self._unplug()
        self.has_segment = False
        self.has_gro = False
        self.fallbacks: dict[tuple[str, str], int] = {}
        """Refused offloads, by (offload, cause)."""
        self.before_close: Callable[[], None] = lambda: None
        self._segments_per_send = batch_sizes["segments_per_send"]
        self._datagrams_per_receive = batch_sizes["datagrams_per_receive"]

    # --- the socket

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    @property
    def overflow(self) -> int:
        return self._overflow_before + self._overflow

    @property
    def local_endpoint(self) -> Endpoint | None:
        """Where the socket is bound (None: there is none, or it has not sent yet)."""
        if self._socket is None:
            return None
        endpoint = to_endpoint(self._socket.getsockname())
        return endpoint if endpoint.port else None

    def fileno(self) -> int:
        """The socket's descriptor; -1 without a socket."""
        return self._socket.fileno() if self._socket is not None else -1

    def open(self) -> None:
        """Bind. If there is nothing to bind to, wait for `ensure`.

        Raises:
            DataplaneError: `bind_failed`.
        """
        if self._bind is None:
            return
        family = socket.AF_INET6 if self._bind.is_ipv6 else socket.AF_INET
        try:
            self._plug(open_socket(family, self._bind, self._buffer)).bind(to_sockaddr(self._bind, family))
        except OSError as error:
            self.close()
            raise DataplaneError("bind_failed", f"cannot bind UDP {self._bind}: {error.strerror}") from None

    def ensure(self, destination: Endpoint) -> bool:
        """Have a socket that can reach `destination`; True if a new one was made for it.

        Raises:
            DataplaneError: `bind_failed`.
        """
        if self._bind is not None or self._reaches(destination):
            return False
        self.close()
        family = socket.AF_INET6 if destination.is_ipv6 else socket.AF_INET
        try:
            self._plug(open_socket(family, None, self._buffer))
        except OSError as error:
            raise DataplaneError(
                "bind_failed", f"no UDP socket for {destination}: {error.strerror}"
            ) from None
        return True

    def adopt(self, descriptor: int | None) -> None:
        """Use a socket that somebody else has opened and bound (None: no socket).

        Raises:
            DataplaneError: `system`.
        """
        adopted = None if descriptor is None else self._adopted(descriptor)
        self.close()
        if adopted is not None:
            self._plug(adopted)

    def close(self) -> None:
        """Idempotent."""
        if self._socket is not None:
            self.before_close()
            self._overflow_before += self._overflow
            self._overflow = 0
            self._unplug()
            self._socket.close()
            self._socket = None
            self._sources.clear()

    # --- paths

    def path(self, endpoint: Endpoint) -> Path:
        """See `Transport.path`.

        Raises:
            OSError: an address that this socket cannot send to.
        """
        address = to_sockaddr(endpoint, self._family)
        return Path(address, self, self._sources.get(address))

    def remember_source(self, received: Received) -> None:
        """See `Transport.remember_source`. Holds SOURCES_REMEMBERED of them."""
        _, _, source, pinned_source = received
        if pinned_source is None:
            return
        self._sources[source] = pinned_source
        self._sources.move_to_end(source)
        if len(self._sources) > SOURCES_REMEMBERED:
            self._sources.popitem(last=False)

    # --- receiving

    def receive(self) -> Received | None:
        """See `Transport.receive`."""
        try:
            data, ancillary, _, source = self._recvmsg(MAX_DATAGRAM_OCTETS, ANCILLARY_OCTETS)
        except BlockingIOError:
            return None
        except OSError as error:
            # An ICMP error of an earlier datagram: nothing was lost by this read.
            self._drop(drop_reason(error.errno), 0)
            return None
        if ancillary == self._usual:
            self._datagrams_per_receive.ones += 1
            return data, len(data), source, self._usual_source
        return self._parsed(data, ancillary, source)

    def _parsed(self, data: bytes, ancillary: list[AncillaryItem], source: SockAddress) -> Received:
        """A read whose ancillary messages are not the usual ones."""
        size = len(data)
        pinned_source = None
        is_usual = True
        for level, kind, value in ancillary:
            if kind == UDP_GRO and level == socket.IPPROTO_UDP:
                size = int.from_bytes(value[:4], sys.byteorder)
                is_usual = False
            elif kind == SO_RXQ_OVFL and level == socket.SOL_SOCKET:
                self._overflow = _U32.unpack(value)[0]
                is_usual = False
            else:
                pinned_source = pinned_source_of(level, kind, value)
        if is_usual:
            self._usual, self._usual_source = ancillary, pinned_source
        self._datagrams_per_receive.observe(-(-len(data) // size) if size else 1)
        return data, size, source, pinned_source

    # --- sending

    def fitting(self, frames: Sequence[bytes], overhead: int) -> int:
        """See `Carrier.fitting`: the socket decides packet by packet."""
        return len(frames)

    def send(self, packets: Sequence[bytes], path: Path, now: float, octet: int = 0) -> int:
        """See `Transport.send`. Runs of equal size go in one system call."""
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

    def send_one(self, packet: bytes, path: Path, mark: AncillaryItem | None = None) -> int:
        """See `Transport.send_one`. `mark`: the message that sets the traffic class (None: class 0)."""
        pinned_source = path.pinned_source
        try:
            if mark is not None:
                both = (mark,) if pinned_source is None else (mark, pinned_source)
                self._sendmsg((packet,), both, 0, path.address)
            elif pinned_source is None:
                self._sendto(packet, path.address)
            else:
                self._sendmsg((packet,), (pinned_source,), 0, path.address)
        except OSError:
            number = self._try((packet,), path, [] if mark is None else [mark])
            if number:
                self._drop(drop_reason(number), 1)
                return 0
        self._segments_per_send.ones += 1
        return len(packet)

    def send_whole(self, packet: bytes, path: Path) -> bool:
        """Send a packet that nobody may cut; false: the link here takes none so large."""
        if self._socket is None:
            return True
        forbid_fragments(self._socket, is_forbidden=True)
        try:
            return self._try((packet,), path, []) != errno.EMSGSIZE
        finally:
            forbid_fragments(self._socket, is_forbidden=False)

    def send_to(self, datagram: bytes, endpoint: Endpoint) -> None:
        """See `Transport.send_to`."""
        try:
            path = self.path(endpoint)
        except OSError as error:
            self._drop(drop_reason(error.errno), 1)
            return
        self.send_one(datagram, path)

    def _end_of_run(self, sizes: list[int], at: int, segment_limit: int) -> int:
        """The end of the packets from `at` that one call can send: of one size, the last may be smaller."""
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
        segment = (socket.IPPROTO_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))
        number = self._try(run, path, [segment] if mark is None else [segment, mark])
        if number == 0:
            self._segments_per_send.observe(len(run))
            return sum(map(len, run))
        cause = BATCH_REFUSALS.get(number)
        if cause is None:
            self._drop(drop_reason(number), len(run))
            return 0
        key = ("udp_gso", cause)
        self.fallbacks[key] = self.fallbacks.get(key, 0) + 1
        # EIO: there is no segmentation at all. Else the size was too large (older kernels say EINVAL).
        path.segment_limit = 0 if cause == "eio" else min(path.segment_limit, size - 1)
        path.retry_at = now + SEGMENT_RETRY_SECONDS
        return sum(self.send_one(packet, path, mark) for packet in run)

    def _try(self, packets: Sequence[bytes], path: Path, unpinned: list[AncillaryItem]) -> int:
        """Send in one call; 0, or the errno. Gives up the path's pinned source if that address has gone."""
        ancillary = unpinned if path.pinned_source is None else [*unpinned, path.pinned_source]
        number = self._try_once(packets, ancillary, path.address)
        if number in SOURCE_GONE and path.pinned_source is not None:
            again = self._try_once(packets, unpinned, path.address)
            if again != number:
                # The address went away with its link or lease; the kernel chooses another.
                path.pinned_source = None
                self._sources.pop(path.address, None)
                return again
        return number

    def _try_once(
        self, packets: Sequence[bytes], ancillary: list[AncillaryItem], address: PeerAddress
    ) -> int:
        """Send, and wait once for room if the socket is full; 0, or the errno."""
        sock = self._socket
        if sock is None:
            return errno.ENETDOWN
        for attempt in range(2):
            try:
                self._sendmsg(packets, ancillary, 0, address)
                return 0
            except BlockingIOError:
                if attempt or not _wait_for_room(sock):
                    return errno.EAGAIN
            except OSError as error:
                return error.errno or errno.EIO
        return errno.EAGAIN

    # --- plugging sockets in and out

    def _reaches(self, destination: Endpoint) -> bool:
        return self._socket is not None and (self._family == socket.AF_INET6) == destination.is_ipv6

    def _adopted(self, descriptor: int) -> socket.socket:
        try:
            copy = os.dup(descriptor)
            try:
                sock = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                raise
            sock.setblocking(False)
            set_common_options(sock, self._buffer)
        except OSError as error:
            raise DataplaneError("system", f"cannot use the UDP socket: {error.strerror}") from None
        return sock

    def _plug(self, sock: socket.socket) -> socket.socket:
        """Use this socket: its calls are looked up once."""
        self._socket = sock
        self._family = sock.family
        self._recvmsg, self._sendto, self._sendmsg = sock.recvmsg, sock.sendto, sock.sendmsg
        self.has_segment = accepts(sock, UDP_SEGMENT, 0)
        self.has_gro = accepts(sock, UDP_GRO, 1)
        for name, present in (("udp_gso", self.has_segment), ("udp_gro", self.has_gro)):
            if not present:
                self.fallbacks[name, "einval"] = self.fallbacks.get((name, "einval"), 0) + 1
        return sock

    def _unplug(self) -> None:
        """Without a socket all calls fail as if the network were down."""
        self._recvmsg = self._sendto = self._sendmsg = _network_is_down


def _wait_for_room(sock: socket.socket) -> bool:
    """Let the socket drain for a moment; meanwhile frames wait in the TAP's queue and are not lost."""
    waiting = select.poll()
    waiting.register(sock, select.POLLOUT)
    return bool(waiting.poll(SEND_WAIT_MILLISECONDS))


def _network_is_down(*_: object) -> NoReturn:
    raise OSError(errno.ENETDOWN, "no socket")
