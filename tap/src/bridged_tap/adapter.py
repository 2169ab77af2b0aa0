"""A TAP adapter in the hands of this process: frames in and out, changes, close.

Source: Linux `Documentation/networking/tuntap.rst`; behaviour checked against Linux 6.18.
Acts in the network namespace of the calling thread, whatever /sys and /proc/net show there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

from bridged.addresses import MacAddress
from bridged.errors import TapError
from bridged_tap import kernel
from bridged_tap.lock import AdapterLock
from bridged_tap.settings import MTU_MAXIMUM, MTU_MINIMUM, Offload, check_range, check_unicast

FRAME_OCTETS: Final = 65535 + 14 + 4 + 12
"""Room for the largest super-frame: IP packet, Ethernet header, a VLAN tag, virtio-net header."""

_OFFLOAD_STEPS: Final = (
    Offload.CSUM,
    Offload.TSO4,
    Offload.TSO6,
    Offload.TSO_ECN,
    Offload.USO4 | Offload.USO6,
)


class TapAdapter:
    """An attached TAP adapter; made by `open_tap`, used as a context manager.

    One frame (Ethernet header first, without FCS; after the virtio-net header if there is one) per
    read and write. The descriptors do not block. `adopted` tells that the adapter was there before.
    Not for use by several threads at once, but for reads and writes on different queues.

    Methods that change the adapter raise TapError with code `tap_io` when the kernel refuses, and
    `tap_closed` after `close`.
    """

    def __init__(
        self,
        name: str,
        queues: tuple[int, ...],
        control: kernel.LinkControl,
        lock: AdapterLock | None,
        *,
        adopted: bool,
    ) -> None:
        self._name = name
        self._queues = queues
        self._control = control
        self._lock = lock
        self.adopted = adopted
        self.ifindex = control.ifindex(name)
        self.virtio_header_size = 0
        self.offloads = Offload.NONE
        self.refused_offloads = Offload.NONE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TapAdapter {self._name} ifindex={self.ifindex} queues={len(self._queues)}>"

    @property
    def name(self) -> str:
        """The present name; follows a rename by the operator."""
        if self._queues:
            with suppress(OSError):
                self._name, _ = kernel.get_interface(self._queues[0])
        return self._name

    @property
    def fds(self) -> tuple[int, ...]:
        """One non-blocking descriptor per queue; empty after `close`."""
        return self._queues

    def fileno(self) -> int:
        """The first queue's descriptor."""
        self._check_open()
        return self._queues[0]

    @property
    def is_locked(self) -> bool:
        """This process holds the adapter lock."""
        return self._lock is not None and self._lock.is_effective

    @property
    def mac(self) -> MacAddress:
        with self._asking("read the MAC address"):
            return self._control.mac(self.name)

    def set_mac(self, mac: MacAddress) -> None:
        """Give the port another address, also while it is up.

        Raises:
            TapError: code `mac_address`; multicast or zero.
        """
        check_unicast(mac)
        if mac != self.mac:
            with self._asking(f"set MAC address {mac}"):
                self._control.set_mac(self.name, mac)

    @property
    def mtu(self) -> int:
        """Octets of payload in a frame."""
        with self._asking("read the MTU"):
            return self._control.mtu(self.name)

    def set_mtu(self, mtu: int) -> None:
        """Octets of payload, 68..65521.

        Raises:
            TapError: code `tap_settings` outside that range.
        """
        check_range("mtu", mtu, MTU_MINIMUM, MTU_MAXIMUM)
        if mtu != self.mtu:
            with self._asking(f"set MTU {mtu}"):
                self._control.set_mtu(self.name, mtu)

    @property
    def txqueuelen(self) -> int:
        """Frames that may wait for our read."""
        with self._asking("read the queue length"):
            return self._control.txqueuelen(self.name)

    def set_txqueuelen(self, frames: int) -> None:
        # An unprivileged owner may not set it, and need not where it is right already.
        if frames != self.txqueuelen:
            with self._asking(f"set txqueuelen {frames}"):
                self._control.set_txqueuelen(self.name, frames)

    @property
    def is_up(self) -> bool:
        with self._asking("read the flags"):
            return self._control.is_up(self.name)

    def up(self) -> None:
        """Set the link administratively up; frames pass only then."""
        with self._asking("set it up"):
            self._control.set_up(self.name, True)

    def down(self) -> None:
        with self._asking("set it down"):
            self._control.set_up(self.name, False)

    def set_offloads(self, offloads: Offload) -> None:
        """Ask for exactly these offloads; what the kernel refuses goes to `refused_offloads`.

        Raises:
            TapError: code `tap_settings`; offloads without the virtio-net header.
        """
        if offloads and not self.virtio_header_size:
            raise TapError("tap_settings", f"{self.name}: offloads need the virtio-net header")
        with self._asking("set offloads"):
            self.offloads = _negotiate_offloads(self.fileno(), offloads)
        self.refused_offloads = offloads & ~self.offloads

    def set_virtio_header_size(self, octets: int) -> None:
        """Size of the virtio-net header, 10 or 12 octets, of an adapter opened with one."""
        with self._asking(f"set the virtio-net header to {octets} octets"):
            kernel.set_header_size(self.fileno(), octets)
            self.virtio_header_size = kernel.get_header_size(self.fileno())

    def set_owner(self, user: int) -> None:
        """The user id that may attach the adapter without CAP_NET_ADMIN."""
        with self._asking(f"set owner {user}"):
            fcntl.ioctl(self.fileno(), kernel.TUNSETOWNER, user)

    def set_group(self, group: int) -> None:
        """The group id that may attach the adapter without CAP_NET_ADMIN."""
        with self._asking(f"set group {group}"):
            fcntl.ioctl(self.fileno(), kernel.TUNSETGROUP, group)

    def set_persistent(self, persistent: bool) -> None:
        """Persistent adapters stay when their last holder goes."""
        with self._asking("set persistence"):
            fcntl.ioctl(self.fileno(), kernel.TUNSETPERSIST, int(persistent))

    def set_queue_enabled(self, queue: int, enabled: bool) -> None:
        """Take queue number `queue` (index into `fds`) of a multi-queue adapter out of service, or back."""
        with self._asking(f"{'enable' if enabled else 'disable'} queue {queue}"):
            kernel.set_queue(self._queues[queue], attached=enabled)

    def read(self, octets: int = FRAME_OCTETS) -> bytes:
        """One frame from the first queue; what does not fit into `octets` is cut off by the kernel.

        Raises:
            BlockingIOError: no frame waits.
            OSError: EIO while the link is down, EBADFD when the adapter was deleted.
        """
        return os.read(self.fileno(), octets)

    def write(self, frame: bytes | bytearray | memoryview) -> int:
        """Put one frame on the first queue; returns the octets taken.

        Raises:
            OSError: EIO while the link is down; EINVAL for less than an Ethernet header, or a
                virtio-net header that does not fit the frame.
        """
        return os.write(self.fileno(), frame)

    def close(self) -> None:
        """Detach, then give the lock free. A non-persistent adapter disappears. Again is harmless."""
        queues, self._queues = self._queues, ()
        if queues and self.offloads:
            # A persistent adapter would keep them, and hand its next holder super-frames unasked.
            with suppress(OSError):
                kernel.try_offloads(queues[0], Offload.NONE)
        for queue in queues:
            os.close(queue)
        self._control.close()
        if self._lock is not None:
            self._lock.release()

    def _check_open(self) -> None:
        if not self._queues:
            raise TapError("tap_closed", f"adapter {self._name} is closed")

    @contextmanager
    def _asking(self, wish: str) -> Iterator[None]:
        self._check_open()
        try:
            yield
        except OSError as error:
            raise TapError("tap_io", f"{self._name}: cannot {wish}: {error.strerror}") from error


def _negotiate_offloads(queue: int, wanted: Offload) -> Offload:
    if kernel.try_offloads(queue, wanted):
        return wanted
    accepted = Offload.NONE
    for step in _OFFLOAD_STEPS:
        if wanted & step and kernel.try_offloads(queue, accepted | (wanted & step)):
            accepted |= wanted & step
    kernel.try_offloads(queue, accepted)
    return accepted
