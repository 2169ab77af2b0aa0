"""One TCP connection that carries a peer's packets: what waits for it, and what has come of a packet so far.

Source: docs/protocol/data.md#2-1, tcp(7) (TCP_NODELAY, TCP_NOTSENT_LOWAT).
Called with the loop's gate held. No call waits for the far end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import (
    STREAM_CONTROL_OCTETS,
    STREAM_GROWN_OCTETS,
    STREAM_PACKET_OCTETS,
    STREAM_QUEUE_OCTETS,
    STREAM_STRANGER_OCTETS,
    StreamEnd,
)
from bridged.dataplane.portable.control.counters import BatchSizes
from bridged.dataplane.portable.transport.framing import PREFIX_OCTETS, BadFraming, Deframer, framed
from bridged.dataplane.portable.transport.seam import Path, Received
from bridged.errors import DataplaneError
from bridged.socket_addresses import StreamAddress

READ_OCTETS: Final = 128 * 1024
NOT_SENT_OCTETS: Final = 128 * 1024
"""What the kernel takes beyond what is on its way: nothing that waits there can be dropped."""
_TCP_NOTSENT_LOWAT: Final = 25
_SO_BUF_LOCK: Final = 72
"""Since Linux 5.15."""


class Stream:
    """A connected socket. `on_waiting` hears when something begins to wait for it, and when nothing does."""

    is_stream = True

    def __init__(
        self,
        descriptor: int,
        endpoint: Endpoint,
        received: bytes,
        on_waiting: Callable[[Stream], None],
        segments_per_send: BatchSizes,
        packet_octets: int = STREAM_PACKET_OCTETS,
    ) -> None:
        """Use a duplicate of `descriptor`. `packet_octets`: of the longest packet until `welcome`.

        Raises:
            DataplaneError: `system`.
        """
        self.endpoint = endpoint
        self.address: StreamAddress = (endpoint.host, endpoint.port, "tcp")
        self.end: StreamEnd | None = None
        """Why it is over (None: it is not)."""
        self.is_closing = False
        """Nothing is read any more, and it closes when all has been sent."""
        self.closes_at = float("inf")
        self._deframer = Deframer(received, packet_octets)
        self._waiting = bytearray()
        self._on_waiting = on_waiting
        self._segments_per_send = segments_per_send
        self._socket = _adopted(descriptor, endpoint)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._waiting.clear()
        self._socket.close()

    def welcome(self) -> None:
        """A peer is there: it may send long packets, and the kernel finds out how much room it needs."""
        if self._deframer.packet_octets == STREAM_PACKET_OCTETS:
            return
        self._deframer.packet_octets = STREAM_PACKET_OCTETS
        for level, name, value in (
            (socket.SOL_SOCKET, socket.SO_RCVBUF, STREAM_GROWN_OCTETS),
            (socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_GROWN_OCTETS),
            (socket.SOL_SOCKET, _SO_BUF_LOCK, 0),
        ):
            with suppress(OSError):
                self._socket.setsockopt(level, name, value)

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    # --- sending

    def fitting(self, frames: Sequence[bytes], overhead: int) -> int:
        """How many of these frames there is room for; each becomes a packet with `overhead` bytes more."""
        if self.end is not None or self.is_closing:
            return 0
        room = STREAM_QUEUE_OCTETS - len(self._waiting)
        for count, frame in enumerate(frames):
            room -= len(frame) + overhead + PREFIX_OCTETS
            if room < 0:
                return count
        return len(frames)

    def send(self, packets: Sequence[bytes], path: Path, now: float, octet: int = 0) -> int:
        """See `Carrier.send`. Takes all packets; ask `fitting` before they are sealed."""
        if self.end is not None:
            return 0
        self._segments_per_send.observe(len(packets))
        self._put(framed(packets))
        return sum(map(len, packets))

    def send_one(self, packet: bytes, path: Path) -> int:
        return self.send((packet,), path, 0.0)

    def send_control(self, packet: bytes) -> None:
        """Send a control packet; where far too many wait, the stream is over."""
        if self.end is not None or self.is_closing:
            return
        is_stranger = self._deframer.packet_octets < STREAM_PACKET_OCTETS
        most = STREAM_STRANGER_OCTETS if is_stranger else STREAM_QUEUE_OCTETS + STREAM_CONTROL_OCTETS
        if len(self._waiting) > most:
            self.break_off("overflow")
            return
        self._put(framed((packet,)))

    def flush(self) -> None:
        """The socket takes more."""
        if self._waiting:
            del self._waiting[: self._write(self._waiting)]
            if not self._waiting:
                self._on_waiting(self)

    def finish(self) -> None:
        """All that was to be sent has been: say so to the far end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def break_off(self, reason: StreamEnd) -> None:
        """It is over; the loop hears of it by reading."""
        if self.end is None:
            self.end = reason
            self._waiting.clear()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _put(self, octets: bytes) -> None:
        if self._waiting:
            self._waiting += octets
            return
        sent = self._write(octets)
        if sent < len(octets) and self.end is None:
            self._waiting += memoryview(octets)[sent:]
            self._on_waiting(self)

    def _write(self, octets: bytes | bytearray) -> int:
        try:
            return self._socket.send(octets, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self.break_off("reset")
            return 0

    # --- receiving

    def receive(self) -> Iterator[Received]:
        """The packets that have come, those of equal length together. `end` says if there will be no more."""
        octets = b""
        try:
            octets = self._socket.recv(READ_OCTETS)
            if not octets:
                self.end = self.end or "closed"
        except BlockingIOError:
            pass
        except OSError:
            self.end = self.end or "reset"
        if self.is_closing:
            return
        try:
            packets = self._deframer.take(octets)
        except BadFraming:
            self.end = self.end or "bad_framing"
            return
        for size, run in groupby(packets, len):
            yield b"".join(run), size, self.address, None


def _adopted(descriptor: int, endpoint: Endpoint) -> socket.socket:
    copy = -1
    try:
        copy = os.dup(descriptor)
        adopted = socket.socket(fileno=copy)
        copy = -1
    except OSError as error:
        if copy >= 0:
            os.close(copy)
        raise DataplaneError("system", f"no connection to {endpoint}: {error.strerror}") from None
    try:
        if adopted.type != socket.SOCK_STREAM:
            raise DataplaneError("system", f"no connection to {endpoint}: not a TCP socket")
        adopted.setblocking(False)
        adopted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        adopted.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT_OCTETS)
    except OSError as error:
        adopted.close()
        raise DataplaneError("system", f"no connection to {endpoint}: {error.strerror}") from None
    except DataplaneError:
        adopted.close()
        raise
    return adopted
