"""One NETLINK_ROUTE socket for requests: send a message, read the answer, raise what the kernel refuses.

The messages are pyroute2's. Its synchronous socket is not used: it runs an event loop in every call, which a
coroutine cannot do, and it joins the kernel's multicast groups.

Source: netlink(7), RFC 3549.
Blocking, but not for long: the kernel answers a request within the system call. Not thread-safe.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from bridged.errors import NetlinkError
from bridged.netlink.multicast import attributes

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTERRUPTED = 0x10
NLM_F_REPLACE = 0x100
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLMSGERR_ATTR_MSG = 1
_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=i")
_RECEIVE_BUFFER_OCTETS = 1 << 20
_DATAGRAM_OCTETS = 1 << 16
_ANSWER_SECONDS = 5.0
_DUMP_ATTEMPTS = 5


class RouteSocket:
    """A socket to the routing part of the kernel, in the network namespace of the thread that makes it.

    Raises:
        NetlinkError: in all methods, with what was tried and on which link.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_OCTETS)
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(self, message: Any, message_type: int, flags: int, *, operation: str, link: str) -> None:
        """Send a request; returns when the kernel has carried it out."""
        self._await(self._send(message, message_type, flags | NLM_F_ACK, operation, link), operation, link)

    def request_octets(self, body: bytes, message_type: int, *, operation: str, link: str) -> None:
        """`request` for a message that pyroute2 cannot serialize; `body` follows the header."""
        self._sequence += 1
        flags = NLM_F_REQUEST | NLM_F_ACK
        header = _HEADER.pack(_HEADER.size + len(body), message_type, flags, self._sequence, 0)
        self._send_octets(header + body, operation, link)
        self._await(self._sequence, operation, link)

    def _await(self, sequence: int, operation: str, link: str) -> None:
        for kind, body, _ in self._answers(sequence, operation, link):
            if kind == NLMSG_ERROR:
                self._check(body, operation, link)
                return

    def get(self, message: Any, message_type: int, *, operation: str, link: str) -> Any:
        """Ask for one object; the answer is of the same class as `message`."""
        sequence = self._send(message, message_type, NLM_F_ACK, operation, link)
        found: Any = None
        for kind, body, whole in self._answers(sequence, operation, link):
            if kind == NLMSG_ERROR:
                self._check(body, operation, link)
                return found
            found = _decoded(type(message), whole)
        return found

    def dump(
        self, message: Any, message_type: int, keep: Callable[[bytes], bool] = lambda message: True
    ) -> list[Any]:
        """All objects of a kind, as far as `keep` accepts the message (header first).

        `keep` saves time: it sees messages before they are decoded, and decoding is the slow part.
        """
        whole = self.dump_undecoded(message, message_type)
        return [_decoded(type(message), octets) for octets in whole if keep(octets)]

    def dump_undecoded(self, message: Any, message_type: int) -> list[bytes]:
        """The messages of all objects of a kind. Repeats a dump that changes have interrupted."""
        operation = f"dump of type {message_type}"
        for _ in range(_DUMP_ATTEMPTS):
            sequence = self._send(message, message_type, NLM_F_DUMP, operation, "the host")
            self._interrupted = False
            parts = [
                (kind, body, whole) for kind, body, whole in self._answers(sequence, operation, "the host")
            ]
            for kind, body, _ in parts:
                if kind == NLMSG_ERROR:
                    self._check(body, operation, "the host")
            if not self._interrupted:
                break
        return [whole for kind, _, whole in parts if kind >= 16]

    def _send(self, message: Any, message_type: int, flags: int, operation: str, link: str) -> int:
        self._sequence += 1
        header = message["header"]
        header["type"] = message_type
        header["flags"] = flags | NLM_F_REQUEST
        header["sequence_number"] = self._sequence
        message.reset()
        message.encode()
        self._send_octets(bytes(message.data), operation, link)
        return self._sequence

    def _send_octets(self, octets: bytes, operation: str, link: str) -> None:
        try:
            self._socket.send(octets)
        except OSError as error:
            raise NetlinkError(operation, link, error.errno or 0) from error

    def _answers(self, sequence: int, operation: str, link: str) -> Iterator[tuple[int, bytes, bytes]]:
        """(type, body, whole message) of each part of the answer to `sequence`."""
        while True:
            try:
                datagram = self._socket.recv(_DATAGRAM_OCTETS)
            except TimeoutError:
                raise NetlinkError(operation, link, errno.ETIMEDOUT, "no answer from the kernel") from None
            except OSError as error:
                raise NetlinkError(operation, link, error.errno or 0) from error
            offset = 0
            while offset + _HEADER.size <= len(datagram):
                length, kind, flags, number, _ = _HEADER.unpack_from(datagram, offset)
                whole = datagram[offset : offset + length]
                offset += (length + 3) & ~3
                # Belongs to an earlier request that timed out.
                if number != sequence or kind == NLMSG_NOOP:
                    continue
                if flags & NLM_F_DUMP_INTERRUPTED and kind != NLMSG_ERROR:
                    self._interrupted = True
                yield kind, whole[_HEADER.size :], whole
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return

    def _check(self, body: bytes, operation: str, link: str) -> None:
        (number,) = _ERROR.unpack_from(body)
        if number:
            raise NetlinkError(operation, link, -number, _detail(body) or os.strerror(-number))


def _detail(body: bytes) -> str:
    """The kernel's explanation, if any. It follows the request's header (16 bytes)."""
    text = dict(attributes(body, _ERROR.size + _HEADER.size)).get(_NLMSGERR_ATTR_MSG, b"")
    return text.rstrip(b"\0").decode(errors="replace")


def _decoded(message_class: type[Any], whole: bytes) -> Any:
    message = message_class(whole)
    message.decode()
    return message
