"""Listens to the kernel's routing groups, and parses the layout of its messages and attributes.

Source: netlink(7) (ENOBUFS), rtnetlink(7).
In the event loop: one socket. Each turn reads a bounded number of datagrams, so other work gets its time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from bridged.supervision import SUPERVISOR

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ATTRIBUTE_TYPE_MASK: Final = 0x3FFF
"""Without the flags for nested attributes and byte order."""
_DATAGRAM_OCTETS: Final = 1 << 16
_SO_RCVBUFFORCE: Final = 33
_DATAGRAMS_PER_TURN: Final = 64


class MulticastListener:
    """Reads the datagrams of `groups` (RTNLGRP_* numbers) from `start` to `close`.

    `on_datagrams` gets those of one turn. `on_lost` is called when the kernel had to drop some.
    """

    def __init__(
        self,
        groups: tuple[int, ...],
        on_datagrams: Callable[[list[bytes]], None],
        on_lost: Callable[[], None],
        receive_buffer_octets: int = 1 << 20,
    ) -> None:
        self._mask = sum(1 << (group - 1) for group in groups)
        self._on_datagrams = on_datagrams
        self._on_lost = on_lost
        self._receive_buffer_octets = receive_buffer_octets
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen, in the running event loop and the network namespace of its thread. Idempotent.

        Raises:
            OSError: no netlink socket to be had.
        """
        if self._socket is not None:
            return
        listener = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        try:
            _set_buffer(listener, self._receive_buffer_octets)
            listener.bind((0, self._mask))
        except OSError:
            listener.close()
            raise
        self._socket = listener
        read = SUPERVISOR.guard("netlink_listener", self._read)
        asyncio.get_running_loop().add_reader(listener.fileno(), read)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None
        datagrams: list[bytes] = []
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                datagrams.append(self._socket.recv(_DATAGRAM_OCTETS))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._on_lost()
        if datagrams:
            self._on_datagrams(datagrams)


def _set_buffer(listener: socket.socket, octets: int) -> None:
    try:
        # Beyond net.core.rmem_max, if allowed: thousands of links may vanish at once.
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, octets)
    except PermissionError:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of the messages in a datagram, up to the first that is cut short."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            return
        yield kind, datagram[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) of the attributes of a body from `offset` on, up to the first that is cut short."""
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            return
        yield kind & _ATTRIBUTE_TYPE_MASK, body[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
