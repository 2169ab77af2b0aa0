"""A path through a kernel that cuts super-frames, rightly or with one fault."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from bridged.dataplane.portable.headers.segment import segment
from bridged.dataplane.portable.headers.vnet import GSO_NONE, parse_vnet
from bridged.units import Seconds

Spoil = Callable[[list[bytes]], list[bytes]]


CHATTER = bytes.fromhex("333300000016020000aaaaaa86dd") + bytes(40)


class CuttingPath:
    """Cuts as a kernel does, then spoils what came of super-frames of one IP version; chatters in between."""

    virtio_header_size = 10

    def __init__(self, spoil: Spoil = list, version: int = 0, refuses: bool = False) -> None:
        self._spoil = spoil
        self._version = version
        self._refuses = refuses
        self._frames: list[bytes] = []

    def write(self, packet: bytes) -> None:
        header = parse_vnet(packet)
        frames = segment(header, packet[10:])
        is_meant = header.gso_type != GSO_NONE and frames[0][14] >> 4 == self._version
        if is_meant and self._refuses:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._frames += [CHATTER, *(self._spoil(frames) if is_meant else frames)]

    def read(self, count: int, patience: Seconds) -> list[bytes]:
        taken, self._frames = self._frames[:count], self._frames[count:]
        return taken


def changed(at: int, *, number: int = -1) -> Spoil:
    """One bit of one frame is another one."""

    def spoil(frames: list[bytes]) -> list[bytes]:
        octets = bytearray(frames[number])
        octets[at] ^= 1
        frames[number] = bytes(octets)
        return frames

    return spoil
