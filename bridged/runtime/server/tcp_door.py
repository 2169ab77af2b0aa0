"""Where TCP clients of a server arrive: listens, waits for a first packet, hands over to the data plane.

Source: docs/protocol/control.md#1-1; docs/decisions/0087.
Asyncio. Bounded by `ConnectionShares` and by times; nothing that a stranger sends costs more than one read.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane
from bridged.endings import take_every_step
from bridged.errors import DataplaneError
from bridged.protocol.strangers.first_packet import MOST_OCTETS, FirstVerdict, judge
from bridged.runtime.server.connection_shares import ConnectionShares
from bridged.runtime.server.port_share import PortShare
from bridged.socket_addresses import to_endpoint, to_sockaddr
from bridged.supervision import SUPERVISOR, Timer

FIRST_SECONDS: Final = 10.0
"""How long a connection may take for its first packet."""
SESSION_SECONDS: Final = 20.0
"""How long it may be without a session after that."""
LOOK_SECONDS: Final = 1.0
BACKLOG: Final = 1024
ACCEPTS_PER_TURN: Final = 64
STRANGER_OCTETS: Final = 8 * 1024
"""Bytes that the kernel keeps for a stranger each way; it takes as much again for itself."""
STRANGER_PACKET_OCTETS: Final = 2048
"""Bytes of a stranger's longest packet: OpenVPN's control packets have no more (TLS_CHANNEL_BUF_SIZE)."""
FRAME_MARGIN_OCTETS: Final = 256
"""What a packet with a frame has beside it, at most: a peer's first frames may come before it is known."""
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


@dataclass(slots=True, eq=False)
class _Arrival:
    """A connection whose first packet is not complete.

    Others may come from its endpoint at the same time, to other addresses of this host.
    """

    connection: socket.socket
    endpoint: Endpoint
    octets: bytes = b""

    @property
    def host(self) -> str:
        return self.endpoint.host


class Examination(Protocol):
    """Decides about first packets: of `most_octets` with their length, at most, within `first_seconds`."""

    most_octets: int
    first_seconds: float
    refusal: str
    """The drop reason of the last `other`."""

    def judge(self, octets: bytes) -> FirstVerdict:
        """As `first_packet.judge`. After `packet` the data plane gets the connection."""

    def handle_taken(self, endpoint: Endpoint) -> None:
        """The data plane has the connection of the packet that was judged last."""


class TcpDoor:
    """Listens at some endpoints from `open` to `close`.

    `has_session` says whether a session is at an endpoint, `end_sessions` ends those there. `count(reason)`
    hears of connections that are cut off. `share` gets what does not speak OpenVPN (None: nobody does).
    `mtu`: of the frames. `examine`: looks at first bytes in place of what OpenVPN's hard resets look like.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        has_session: Callable[[Endpoint], bool],
        end_sessions: Callable[[Endpoint], None],
        count: Callable[[str], None],
        now: Callable[[], float],
        subject: str,
        share: PortShare | None = None,
        mtu: int = 1500,
        examine: Examination | None = None,
    ) -> None:
        self._share = share
        self._examine = examine
        self._first_octets = MOST_OCTETS if examine is None else examine.most_octets
        self._first_seconds = FIRST_SECONDS if examine is None else examine.first_seconds
        self._packet_octets = max(STRANGER_PACKET_OCTETS, mtu + FRAME_MARGIN_OCTETS)
        self.endpoints: tuple[Endpoint, ...] = ()
        """Where it listens."""
        self._dataplane = dataplane
        self._has_session = has_session
        self._end_sessions = end_sessions
        self._count = count
        self._now = now
        self._subject = subject
        self._listeners: list[socket.socket] = []
        self._arrivals: set[_Arrival] = set()
        self._strangers = ConnectionShares[_Arrival | Endpoint]()
        """Arrivals, and by their endpoints the streams of the data plane."""
        self._look: Timer | None = None
        self._pause: Timer | None = None

    def __len__(self) -> int:
        """Connections that have proved nothing yet."""
        return len(self._strangers)

    # --- life -------------------------------------------------------------------------------------

    def open(self, endpoints: Iterable[Endpoint]) -> None:
        """Listen.

        Raises:
            DataplaneError: `bind_failed`.
        """
        try:
            self._listeners += map(_listen, endpoints)
        except DataplaneError:
            self.close()
            raise
        found = (to_endpoint(listener.getsockname()) for listener in self._listeners)
        self.endpoints = tuple(Endpoint(one.host, one.port, "tcp") for one in found)

    def start(self) -> None:
        """Take clients in."""
        if self._listeners:
            self._look = SUPERVISOR.every("tcp_connections", LOOK_SECONDS, self._look_at_all, self._subject)
            self._accept_again()

    def close(self) -> None:
        """Take nobody any more. Connections that the data plane has stay. Idempotent."""
        for timer in (self._look, self._pause):
            if timer is not None:
                timer.cancel()
        self._look = self._pause = None
        listeners, self._listeners = self._listeners, []
        arrivals = list(self._arrivals)
        steps = (partial(self._close_listener, listener) for listener in listeners)
        shared = [] if self._share is None else [self._share.close]
        take_every_step([*steps, *(partial(self._drop_arrival, arrival) for arrival in arrivals), *shared])

    # --- what becomes of connections --------------------------------------------------------------

    def note_identified(self, endpoint: Endpoint) -> None:
        """Its peer has shown a certificate: it is no stranger any more."""
        self._strangers.leave(endpoint)

    def release(self, endpoint: Endpoint) -> None:
        """Close it, as where its last session has ended."""
        self._strangers.leave(endpoint)
        self._dataplane.close_stream(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """The data plane says that it is over."""
        self._strangers.leave(endpoint)

    def _cut_off(self, stranger: _Arrival | Endpoint) -> None:
        self._count("peer_limit")
        self._strangers.leave(stranger)
        if isinstance(stranger, _Arrival):
            self._drop_arrival(stranger)
            return
        self._end_sessions(stranger)
        self._dataplane.close_stream(stranger)

    def _look_at_all(self) -> None:
        """End what takes too long."""
        now = self._now()
        for stranger in self._strangers.older_than(now - self._first_seconds):
            if isinstance(stranger, _Arrival):
                self._cut_off(stranger)
        for stranger in self._strangers.older_than(now - SESSION_SECONDS):
            if isinstance(stranger, Endpoint) and not self._has_session(stranger):
                self._cut_off(stranger)

    # --- arrivals ---------------------------------------------------------------------------------

    def _accept_again(self) -> None:
        self._pause = None
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            take = SUPERVISOR.guard("tcp_accept", partial(self._accept, listener), self._subject)
            loop.add_reader(listener.fileno(), take)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._rest()
                    return
                continue  # the client has gone again
            where = to_endpoint(address)
            self._take_in(connection, Endpoint(where.host, where.port, "tcp"))

    def _rest(self) -> None:
        """There are no descriptors left: others may close some meanwhile."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
        if self._pause is None:
            self._pause = SUPERVISOR.after("tcp_accept", LOOK_SECONDS, self._accept_again, self._subject)

    def _take_in(self, connection: socket.socket, endpoint: Endpoint) -> None:
        connection.setblocking(False)
        _narrow(connection)
        arrival = _Arrival(connection, endpoint)
        self._arrivals.add(arrival)
        gives_way = self._strangers.enter(arrival, self._now())
        if gives_way is not None:
            self._cut_off(gives_way)
        read = SUPERVISOR.guard("tcp_arrival", partial(self._read, arrival), self._subject)
        asyncio.get_running_loop().add_reader(connection.fileno(), read)

    def _read(self, arrival: _Arrival) -> None:
        if arrival not in self._arrivals:
            return
        try:
            octets = arrival.connection.recv(self._first_octets - len(arrival.octets))
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._drop_arrival(arrival)
            return
        arrival.octets += octets
        verdict = judge(arrival.octets) if self._examine is None else self._examine.judge(arrival.octets)
        if verdict == "packet":
            self._hand_over(arrival)
        elif verdict == "other":
            self._turn_away(arrival)

    def _hand_over(self, arrival: _Arrival) -> None:
        self._forget_arrival(arrival)
        endpoint = arrival.endpoint
        # A session does not outlive its connection, of which the data plane has one for each endpoint.
        self._end_sessions(endpoint)
        self._strangers.enter(endpoint, self._now())
        try:
            self._dataplane.adopt_stream(
                arrival.connection.fileno(), endpoint, arrival.octets, self._packet_octets
            )
        except DataplaneError:
            self.release(endpoint)
            return
        finally:
            arrival.connection.close()
        if self._examine is not None:
            self._examine.handle_taken(endpoint)

    def _turn_away(self, arrival: _Arrival) -> None:
        self._forget_arrival(arrival)
        if self._share is None:
            self._count("bad_opcode" if self._examine is None else self._examine.refusal)
        elif self._share.take(arrival.connection, arrival.octets, arrival.endpoint):
            return
        else:
            self._count("peer_limit")
        arrival.connection.close()

    def _drop_arrival(self, arrival: _Arrival) -> None:
        self._forget_arrival(arrival)
        arrival.connection.close()

    def _forget_arrival(self, arrival: _Arrival) -> None:
        """It stays open."""
        self._arrivals.discard(arrival)
        self._strangers.leave(arrival)
        self._stop_reading(arrival.connection)

    def _close_listener(self, listener: socket.socket) -> None:
        self._stop_reading(listener)
        listener.close()

    @staticmethod
    def _stop_reading(sock: socket.socket) -> None:
        # Without a running loop nothing is read.
        with suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(sock.fileno())


def _narrow(connection: socket.socket) -> None:
    """Have the kernel keep little for it. Not on the listener: windows could not grow later."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STRANGER_OCTETS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STRANGER_OCTETS)


def _listen(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise DataplaneError("bind_failed", f"cannot bind TCP {endpoint.address}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        is_any = endpoint.host in ("::", "0.0.0.0")
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_any else 1)
        if not is_any:
            # The address may appear later, with its link or lease.
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        listener.bind(to_sockaddr(endpoint, family))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise DataplaneError("bind_failed", f"cannot bind TCP {endpoint.address}: {error.strerror}") from None
    return listener
