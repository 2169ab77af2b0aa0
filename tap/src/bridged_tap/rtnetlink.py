"""rtnetlink over a plain socket: lists of what the kernel has, and single requests.

Source: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Final

from bridged_tap.errors import TapError

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 1
_NLM_F_DUMP: Final = 0x300
_NLM_F_DUMP_INTR: Final = 0x10
_ATTRIBUTE_TYPE: Final = 0x3FFF
_DUMP_ATTEMPTS: Final = 5
_ANSWER_SECONDS: Final = 5.0
_RECEIVE_OCTETS: Final = 1 << 17
_NLM_F_ACK: Final = 4

Attributes = dict[int, bytes]


def parse_attributes(data: bytes) -> Attributes:
    """Type -> value of a run of attributes."""
    attributes: Attributes = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        attributes[kind & _ATTRIBUTE_TYPE] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return attributes


def number_of(attributes: Attributes, kind: int) -> int:
    """An unsigned number of any width; 0 where the attribute is missing."""
    return int.from_bytes(attributes.get(kind, b""), sys.byteorder)


def dump(kind: int, request: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each message of one dump; begun again when the tables changed meanwhile.

    Raises:
        TapError: code `tap_links`.
    """
    for _ in range(_DUMP_ATTEMPTS):
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
                netlink.settimeout(_ANSWER_SECONDS)
                netlink.bind((0, 0))
                flags = _NLM_F_REQUEST | _NLM_F_DUMP
                netlink.send(struct.pack("=IHHII", 16 + len(request), kind, flags, 1, 0) + request)
                messages = _receive_dump(netlink)
        except OSError as error:
            raise TapError(
                "tap_links", f"the kernel does not list its links: {error}", error.errno
            ) from error
        if messages is not None:
            return messages
    raise TapError("tap_links", f"the links changed during each of {_DUMP_ATTEMPTS} listings; try again")


def _receive_dump(netlink: socket.socket) -> list[tuple[int, bytes]] | None:
    messages: list[tuple[int, bytes]] = []
    interrupted = False
    while True:
        data = netlink.recv(_RECEIVE_OCTETS)
        while len(data) >= 16:
            length, kind, flags = struct.unpack_from("=IHH", data)
            if not 16 <= length <= len(data):
                raise OSError("cut netlink message")
            interrupted |= bool(flags & _NLM_F_DUMP_INTR)
            if kind == _NLMSG_DONE:
                return None if interrupted else messages
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", data, 16)[0]
                raise OSError(number, os.strerror(number))
            messages.append((kind, data[16:length]))
            data = data[(length + 3) & ~3 :]


def pack_attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return (struct.pack("=HH", 4 + len(value), kind) + value).ljust((7 + len(value)) & ~3, b"\0")


def request(netlink: socket.socket, kind: int, flags: int, body: bytes) -> None:
    """One request, and the kernel's acknowledgement.

    Raises:
        OSError: what the kernel refused it with.
    """
    header = struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 0, 0)
    netlink.send(header + body)
    answer = netlink.recv(_RECEIVE_OCTETS)
    number = -struct.unpack_from("=i", answer, 16)[0]
    if number:
        raise OSError(number, os.strerror(number))
