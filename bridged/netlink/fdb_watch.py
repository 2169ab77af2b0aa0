"""What the kernel's bridges learn, told as it happens: which station is behind which port now.

Source: rtnetlink(7), Linux `neighbour.h`, bridge(8) (`monitor fdb`).
In the event loop; a burst that the kernel cannot deliver is lost, and stations are told again when they move.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bridged.addresses import MacAddress

_RTM_NEWNEIGH: Final = 28
_GROUP_NEIGH: Final = 1 << 2
_AF_BRIDGE: Final = 7
_NUD_PERMANENT_OR_NOARP: Final = 0x80 | 0x40
_NDA_LLADDR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_ATTRIBUTE: Final = struct.Struct("=HH")
_DATAGRAM_OCTETS: Final = 1 << 16
_DATAGRAMS_PER_TURN: Final = 64
_RECEIVE_BUFFER_OCTETS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StationHeard:
    """A bridge has learned that `address` is behind the port with this interface index."""

    address: MacAddress
    index: int


class FdbWatch:
    """Calls `callback` in the event loop with what was learned, from `start` to `close`."""

    def __init__(self, callback: Callable[[list[StationHeard]], None]) -> None:
        self._callback = callback
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen, in the network namespace of this thread.

        Raises:
            OSError: no netlink socket to be had.
        """
        listener = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_OCTETS)
        try:
            listener.bind((0, _GROUP_NEIGH))
        except OSError:
            listener.close()
            raise
        self._socket = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._read)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None
        heard: list[StationHeard] = []
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                datagram = self._socket.recv(_DATAGRAM_OCTETS)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            heard += parse_stations(datagram)
        if heard:
            self._callback(heard)


def parse_stations(datagram: bytes) -> Iterator[StationHeard]:
    """What one datagram of the kernel says of learned stations; everything else is left out."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, message_type, *_ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            return
        body = datagram[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3
        if message_type != _RTM_NEWNEIGH or len(body) < _NEIGHBOUR.size:
            continue
        family, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
        if family != _AF_BRIDGE or state & _NUD_PERMANENT_OR_NOARP:
            continue
        address = _link_address(body)
        if address is not None:
            yield StationHeard(address, index)


def _link_address(body: bytes) -> MacAddress | None:
    offset = _NEIGHBOUR.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            return None
        if kind & 0x3FFF == _NDA_LLADDR and length == _ATTRIBUTE.size + 6:
            return MacAddress(body[offset + _ATTRIBUTE.size : offset + length])
        offset += (length + 3) & ~3
    return None
