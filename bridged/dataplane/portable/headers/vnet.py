"""The virtio-net header in front of each frame of a TAP with IFF_VNET_HDR.

Source: VIRTIO 1.2, 5.1.6; Linux include/uapi/linux/virtio_net.h (native byte order, as TUN uses it).
Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

NEEDS_CSUM: Final = 1

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80

_LAYOUT: Final = struct.Struct("=BBHHHH")
HEADER_OCTETS: Final = _LAYOUT.size
"""10. A header of 12 bytes has a buffer count at its end, which a TAP does not use."""


@dataclass(frozen=True, slots=True)
class VnetHeader:
    """What the kernel says about a frame. Offsets and sizes are bytes from the start of the frame.

    `gso_type` is without GSO_ECN, which is `ecn`. `segment_size` is the payload of one segment.
    """

    needs_checksum: bool
    gso_type: int
    ecn: bool
    header_length: int
    segment_size: int
    checksum_start: int
    checksum_offset: int


def parse_vnet(packet: bytes) -> VnetHeader:
    """Read the header at the start of `packet`.

    Raises:
        ValueError: fewer than 10 bytes.
    """
    if len(packet) < HEADER_OCTETS:
        raise ValueError(f"{len(packet)} bytes hold no virtio-net header")
    flags, gso, header_length, size, start, offset = _LAYOUT.unpack_from(packet)
    return VnetHeader(
        bool(flags & NEEDS_CSUM), gso & ~GSO_ECN, bool(gso & GSO_ECN), header_length, size, start, offset
    )


def serialize_vnet(header: VnetHeader, length: int = HEADER_OCTETS) -> bytes:
    """The bytes in front of the frame; `length` is 10 or 12."""
    packed = _LAYOUT.pack(
        NEEDS_CSUM if header.needs_checksum else 0,
        header.gso_type | (GSO_ECN if header.ecn else 0),
        header.header_length,
        header.segment_size,
        header.checksum_start,
        header.checksum_offset,
    )
    return packed.ljust(length, b"\0")
