"""Writes frames to the TAP, joined into super-frames if the kernel takes them.

Source: Linux Documentation/networking/tuntap.rst. `headers.coalesce` does the joining.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Set
from typing import Final

from bridged.catalogue.settings import CoalesceKind
from bridged.dataplane.portable.control.counters import BatchSizes
from bridged.dataplane.portable.headers.coalesce import Coalescer
from bridged.dataplane.portable.headers.segment import segment
from bridged.dataplane.portable.headers.vnet import HEADER_OCTETS, parse_vnet
from bridged.dataplane.portable.tap import Tap

JOINED_KINDS: Final = frozenset({"tcp4", "tcp6"})


class TapWriter:
    """Writes to one adapter. `coalesce`: what to join, of JOINED_KINDS; it needs the virtio-net header.

    `has_refused`: the kernel did not take a super-frame; from then on each frame is written alone.
    """

    def __init__(self, tap: Tap, coalesce: Set[CoalesceKind], frames_per_write: BatchSizes) -> None:
        self._tap = tap
        self._descriptor = tap.port.fds[0]
        self._plain = bytes(tap.header)
        kinds = coalesce & JOINED_KINDS if tap.header >= HEADER_OCTETS else frozenset()
        self._coalescer = Coalescer(tap.header, kinds) if kinds else None
        self._frames_per_write = frames_per_write
        self.has_refused = False

    @property
    def joins(self) -> bool:
        return self._coalescer is not None

    def write(self, frames: list[bytes]) -> None:
        """Write frames in order; what the adapter does not take is counted, see `Tap.failed`.

        Raises:
            TapGone: the adapter vanished.
        """
        if self._coalescer is not None and len(frames) > 1:
            for packet, count in self._coalescer.coalesce(frames):
                self._frames_per_write.observe(count)
                try:
                    os.write(self._descriptor, packet)
                except OSError as error:
                    if error.errno == errno.EINVAL and count > 1:
                        self._write_refused(packet)
                    else:
                        self._tap.failed(self._descriptor, error, count)
            return
        self._frames_per_write.ones += len(frames)
        for frame in frames:
            try:
                os.write(self._descriptor, self._plain + frame)
            except OSError as error:
                self._tap.failed(self._descriptor, error, 1)

    def write_one(self, frame: bytes) -> None:
        """`write` for one frame."""
        self._frames_per_write.ones += 1
        try:
            os.write(self._descriptor, self._plain + frame)
        except OSError as error:
            self._tap.failed(self._descriptor, error, 1)

    def _write_refused(self, packet: bytes) -> None:
        """Some kernels (Linux 6.6.44 and others) refuse a valid super-frame: write its frames one by one."""
        self.has_refused = True
        self._coalescer = None
        self.write(segment(parse_vnet(packet), packet[self._tap.header :]))
