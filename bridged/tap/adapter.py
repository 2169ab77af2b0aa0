"""A TAP adapter in the hands of this process: open, create, attach, change, close.

Source: Linux `Documentation/networking/tuntap.rst`; behaviour checked against Linux 6.18.
Acts in the network namespace of the calling thread, whatever /sys and /proc/net show there.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, Self

from bridged.addresses import MacAddress
from bridged.errors import AdapterLockedError, TapError
from bridged.tap import kernel
from bridged.tap.links import Link, find_link
from bridged.tap.lock import AdapterLock, Holder, find_attached, find_holder, lock_adapter
from bridged.tap.settings import MTU_MAXIMUM, MTU_MINIMUM, Offload, TapSettings, check_range, check_unicast

FRAME_OCTETS: Final = 65535 + 14 + 4 + 12
"""Room for the largest super-frame: IP packet, Ethernet header, a VLAN tag, virtio-net header."""

_HEADER_OCTETS: Final = 10
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


def open_tap(settings: TapSettings) -> TapAdapter:
    """Attach to the TAP adapter of that name, making it where there is none; it stays down if it was.

    A present adapter keeps what `settings` leave at None, its persistence, and its being multi-queue.
    On failure nothing that was made here is left behind.

    Raises:
        AdapterLockedError: another process has the adapter, and `settings.lock` is on.
        TapError: codes `tap_unavailable`, `tap_permission`, `tap_not_a_tap` (a TUN or another link has
            the name), `tap_queues` (present adapter is single-queue), `tap_busy` (attached by another,
            with `lock` off), `tap_io`, `tap_links`, `tap_lock`.
    """
    with ExitStack() as undo:
        control = undo.enter_context(kernel.LinkControl())
        lock, present = (None, None) if settings.has_pattern else _claim(settings)
        if lock is not None:
            undo.callback(lock.release)
        queues: list[int] = []
        undo.callback(_close_all, queues)
        name = _attach_queues(settings, present, queues)
        if settings.has_pattern and settings.lock:
            lock = lock_adapter(name)
            undo.callback(lock.release)
        try:
            adapter = TapAdapter(name, tuple(queues), control, lock, adopted=present is not None)
        except OSError as error:
            raise TapError("tap_io", f"{name} vanished while it was opened: {error.strerror}") from error
        _configure(adapter, settings)
        undo.pop_all()
        return adapter


def create_tap(settings: TapSettings) -> str:
    """Make a persistent TAP adapter that no process holds; returns its name.

    Raises:
        TapError: code `tap_exists`, or what `open_tap` raises.
    """
    if not settings.has_pattern and find_link(settings.name) is not None:
        raise TapError("tap_exists", f"a link named {settings.name} exists already")
    with open_tap(settings) as adapter:
        if adapter.adopted:
            raise TapError("tap_exists", f"a link named {settings.name} exists already")
        adapter.set_persistent(True)
        return adapter.name


def delete_tap(name: str) -> None:
    """Delete a persistent TAP adapter that nobody holds.

    Raises:
        AdapterLockedError: a process has it.
        TapError: code `tap_missing`, or what `open_tap` raises.
    """
    if find_link(name) is None:
        raise TapError("tap_missing", f"there is no adapter named {name}")
    with open_tap(TapSettings(name, txqueuelen=None)) as adapter:
        adapter.set_persistent(False)


def _claim(settings: TapSettings) -> tuple[AdapterLock | None, Link | None]:
    """Lock the name, then look at what is there; refuse what another process has attached."""
    name = settings.name
    present = find_link(name)
    if not settings.lock:
        _check_attachable(settings, present)
        return None, present
    owner = present.owner if present else None
    lock = lock_adapter(name, owner=owner, anyone=present is not None and present.group is not None)
    try:
        present = find_link(name)
        _check_attachable(settings, present)
        attached = find_attached(name) if present is not None else None
        if attached is not None:
            raise AdapterLockedError(name, attached.pid, attached.command)
    except BaseException:
        lock.release()
        raise
    return lock, present


def _check_attachable(settings: TapSettings, present: Link | None) -> None:
    if present is None:
        return
    if not present.is_tap:
        kind = "a TUN device (layer 3)" if present.kind == "tun" else f"a {present.kind or 'network'} link"
        raise TapError(
            "tap_not_a_tap", f"{present.name} is {kind}, not a TAP adapter; choose another name or delete it"
        )
    if settings.queues > 1 and not present.multi_queue:
        raise TapError(
            "tap_queues",
            f"{present.name} exists with a single queue and {settings.queues} are wanted; "
            f"delete it (ip link delete {present.name}) or ask for one queue",
        )


def _attach_queues(settings: TapSettings, present: Link | None, queues: list[int]) -> str:
    """Open and attach `settings.queues` descriptors, appending each to `queues` at once."""
    flags = kernel.IFF_TAP | kernel.IFF_NO_PI
    if settings.virtio_header:
        flags |= kernel.IFF_VNET_HDR
    if settings.queues > 1 or (present is not None and present.multi_queue):
        flags |= kernel.IFF_MULTI_QUEUE
    name = settings.name
    for _ in range(settings.queues):
        queue = kernel.open_device()
        queues.append(queue)
        try:
            name = kernel.set_interface(queue, name, flags)
        except OSError as error:
            raise _attach_refused(settings, name, error) from error
    return name


def _attach_refused(settings: TapSettings, name: str, error: OSError) -> TapError:
    if error.errno == errno.EBUSY:
        if settings.lock:
            attached = find_attached(name) or Holder(None, None, None)
            return AdapterLockedError(name, attached.pid, attached.command)
        holder = find_holder(name)
        who = f"process {holder.pid} ({holder.command})" if holder and holder.pid else "another process"
        return TapError(
            "tap_busy",
            f"{name} is attached by {who}, and the kernel lets only one have a single-queue adapter",
        )
    if error.errno in {errno.EPERM, errno.EACCES}:
        return TapError(
            "tap_permission",
            f"{name} may not be attached; run as root (CAP_NET_ADMIN), "
            "or make it persistent with this user as owner",
        )
    return TapError("tap_io", f"{name} cannot be attached: {error.strerror}")


def _configure(adapter: TapAdapter, settings: TapSettings) -> None:
    first = adapter.fileno()
    with adapter._asking("configure it"):
        if settings.virtio_header:
            # A former holder (QEMU sets 12) may have left another size with a persistent adapter.
            kernel.set_header_size(first, _HEADER_OCTETS)
            adapter.virtio_header_size = kernel.get_header_size(first)
        if settings.owner is not None:
            fcntl.ioctl(first, kernel.TUNSETOWNER, settings.owner)
        if settings.group is not None:
            fcntl.ioctl(first, kernel.TUNSETGROUP, settings.group)
    # Offloads of a former holder would otherwise reach us as super-frames we did not ask for.
    adapter.set_offloads(settings.offloads)
    if settings.mac is not None:
        adapter.set_mac(settings.mac)
    if settings.mtu is not None:
        adapter.set_mtu(settings.mtu)
    if settings.txqueuelen is not None:
        adapter.set_txqueuelen(settings.txqueuelen)
    if settings.persistent:
        adapter.set_persistent(True)


def _negotiate_offloads(queue: int, wanted: Offload) -> Offload:
    if kernel.try_offloads(queue, wanted):
        return wanted
    accepted = Offload.NONE
    for step in _OFFLOAD_STEPS:
        if wanted & step and kernel.try_offloads(queue, accepted | (wanted & step)):
            accepted |= wanted & step
    kernel.try_offloads(queue, accepted)
    return accepted


def _close_all(queues: list[int]) -> None:
    for queue in queues:
        os.close(queue)
