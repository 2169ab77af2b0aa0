"""The virtio-net header that stands before each frame of an adapter opened with `virtio_header=True`.

Source: Virtual I/O Device (VIRTIO) 1.2, 5.1.6; Linux `include/uapi/linux/virtio_net.h`, "legacy" layout in
the byte order of this machine.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final

_LAYOUT: Final = struct.Struct("=BBHHHH")
_ECN: Final = 0x80


class Segmentation(IntEnum):
    """What kind of super-frame follows the header (`gso_type`); `NONE` is a plain frame."""

    NONE = 0
    TCP4 = 1
    UDP_FRAGMENTS = 3
    TCP6 = 4
    UDP = 5


@dataclass(frozen=True, slots=True)
class VirtioHeader:
    """What is still to be done to a frame. The default value stands for a complete, plain frame.

    - `needs_checksum`: the 16-bit checksum at `checksum_start + checksum_offset` (counted from the first byte
      of the frame) is still to be made, over all from `checksum_start` on. It holds the sum of the pseudo
      header.
    - `is_checksum_valid`: the sender has verified the checksum.
    - `segmentation`: cut the payload behind `header_size` bytes into pieces of `segment_size` bytes.
    - `has_ecn`: of the packets of a TCP super-frame only the first one keeps the CWR bit.
    """

    needs_checksum: bool = False
    is_checksum_valid: bool = False
    segmentation: Segmentation = Segmentation.NONE
    has_ecn: bool = False
    header_size: int = 0
    segment_size: int = 0
    checksum_start: int = 0
    checksum_offset: int = 0

    SIZE: ClassVar[int] = _LAYOUT.size
    """Bytes: 10."""

    @classmethod
    def parse(cls, packet: bytes | bytearray | memoryview) -> VirtioHeader:
        """Read the header of a packet that `read` returned; the frame is `packet[VirtioHeader.SIZE:]`.

        Raises:
            ValueError: fewer than 10 bytes, or an unknown kind of super-frame.
        """
        if len(packet) < cls.SIZE:
            raise ValueError(f"a virtio-net header has {cls.SIZE} bytes, not {len(packet)}")
        flags, kind, size, segment, start, offset = _LAYOUT.unpack_from(packet)
        return cls(
            needs_checksum=bool(flags & 1),
            is_checksum_valid=bool(flags & 2),
            segmentation=Segmentation(kind & ~_ECN),
            has_ecn=bool(kind & _ECN),
            header_size=size,
            segment_size=segment,
            checksum_start=start,
            checksum_offset=offset,
        )

    def __bytes__(self) -> bytes:
        return _LAYOUT.pack(
            self.needs_checksum | self.is_checksum_valid << 1,
            self.segmentation | (_ECN if self.has_ecn else 0),
            self.header_size,
            self.segment_size,
            self.checksum_start,
            self.checksum_offset,
        )
