"""Reads whether a link joins received packets (GRO) and cuts runs of UDP datagrams (UDP segmentation).

Source: Linux `include/uapi/linux/ethtool.h`, `net/core/dev_ioctl.c` (SIOCETHTOOL), ethtool(8).
Blocking, three short calls; in the network namespace of the calling thread.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_GET_STRINGS, _GET_SET_SIZES, _GET_FEATURES = 0x1B, 0x37, 0x3A
_FEATURE_NAMES: Final = 4
_NAME_OCTETS: Final = 32
_FEATURES_MAX: Final = 1024
GRO: Final = "rx-gro"
UDP_SEGMENTATION: Final = "tx-udp-segmentation"


@dataclass(frozen=True, slots=True)
class LinkOffload:
    """`is_on`: in use. `can_change`: `ethtool -K` can turn it on, or off."""

    is_on: bool
    can_change: bool


def link_offloads(name: str) -> dict[str, LinkOffload]:
    """GRO and UDP_SEGMENTATION of a link; without those that this kernel does not know.

    Raises:
        OSError: there is no such link, or it cannot be asked.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as kernel:
        answer = _ask(kernel, name, struct.pack("=IIQI", _GET_SET_SIZES, 0, 1 << _FEATURE_NAMES, 0))
        count = struct.unpack_from("=I", answer, 16)[0]
        if not 0 < count <= _FEATURES_MAX:
            return {}
        head = struct.pack("=III", _GET_STRINGS, _FEATURE_NAMES, count)
        names = _ask(kernel, name, head + bytes(count * _NAME_OCTETS))[12:]
        words = (count + 31) // 32
        features = _ask(kernel, name, struct.pack("=II", _GET_FEATURES, words) + bytes(words * 16))[8:]
    found = {}
    for wanted in (GRO, UDP_SEGMENTATION):
        place = names.find(wanted.encode() + b"\0")
        if place < 0 or place % _NAME_OCTETS:
            continue
        number = place // _NAME_OCTETS
        # Words of one block: available, requested, active, never changed.
        block = struct.unpack_from("=4I", features, number // 32 * 16)
        available, requested, active, fixed = (bool(word >> number % 32 & 1) for word in block)
        # "off [requested on]": something else that it needs is missing.
        found[wanted] = LinkOffload(active, available and not fixed and (active or not requested))
    return found


def _ask(kernel: socket.socket, name: str, request: bytes) -> bytes:
    buffer = array.array("B", request)
    address, _ = buffer.buffer_info()
    fcntl.ioctl(kernel, _SIOCETHTOOL, struct.pack("16sP16x", name.encode()[:15], address))
    return buffer.tobytes()
