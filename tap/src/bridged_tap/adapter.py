"""An adapter in the hands of this program: frames in and out, changes, close.

Source: Linux `Documentation/networking/tuntap.rst`; behaviour checked against Linux 6.18.
Acts in the network namespace that the adapter was opened in, whatever /sys and /proc/net show.
"""

from __future__ import annotations

import fcntl
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_interface
from typing import Final, Self

from bridged_tap import kernel
from bridged_tap.addresses import MacAddress, station_address
from bridged_tap.errors import TapError, TapSettingsError
from bridged_tap.lock import AdapterLock
from bridged_tap.queue import Queue
from bridged_tap.reading import FrameReader, Source, refusal
from bridged_tap.settings import Mode, Offload, check_mtu

_OFFLOAD_STEPS: Final = (
    Offload.CSUM,
    Offload.TSO4,
    Offload.TSO6,
    Offload.TSO_ECN,
    Offload.USO4 | Offload.USO6,
)


class Adapter(FrameReader):
    """An open adapter, made by `open_tap` or `open_tun`. Use it in a `with` block.

    Each read and write is one frame (TAP) or one IP packet (TUN), after the virtio-net header where there is
    one. Reading serves all queues in turn; `write` uses the first one. For one thread: to use several, give
    each a queue of `queues`.

    Every method and property raises `TapError`: `tap_gone` where somebody deleted the adapter, `tap_closed`
    after `close`, and `tap_io` for all else that the kernel refuses. `mode` is `"tap"` or `"tun"`.
    """

    mode: Mode

    def __init__(
        self,
        name: str,
        ifindex: int,
        descriptors: Sequence[int],
        control: kernel.LinkControl,
        lock: AdapterLock | None,
        *,
        adopted: bool,
        disabled: Collection[int] = (),
    ) -> None:
        self._is_open = True
        self._name = name
        sources = tuple(Source(name, descriptor) for descriptor in descriptors)
        super().__init__(sources)
        self._queues = tuple(
            Queue(number, source, is_enabled=number not in disabled) for number, source in enumerate(sources)
        )
        self._control = control
        self._lock = lock
        self._adopted = adopted
        self._ifindex = ifindex
        self._virtio_header_size = 0
        self._offloads = Offload.NONE
        self._refused_offloads = Offload.NONE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._is_open else " closed"
        return (
            f"<{type(self).__name__} {self._name} ifindex={self._ifindex} queues={len(self._queues)}{state}>"
        )

    def close(self) -> None:
        """Detach, then release the lock. An adapter that is not persistent disappears. Idempotent.

        A task that waits in `receive` gets `tap_closed`; `async for` ends.
        """
        if not self._is_open:
            return
        if self._offloads:
            # A persistent adapter would keep them, and hand its next holder super-frames unasked.
            with suppress(OSError):
                kernel.try_offloads(self._queues[0].fileno(), Offload.NONE)
        self._release()

    def detach(self) -> None:
        """Close this end and release the lock, but leave the adapter as it is. Idempotent.

        For a program that handed duplicates of the descriptors to a successor, which calls `inherit_tap`.
        """
        if self._is_open:
            self._release()

    def disown(self) -> None:
        """Let go of everything, but close no queue: the descriptors are somebody else's."""
        for source in self._sources:
            source.descriptor = -1
        self.detach()

    def __del__(self) -> None:
        if self._is_open:
            warnings.warn(f"unclosed adapter {self!r}", ResourceWarning, source=self, stacklevel=2)
            # The offloads stay: in a forked process this adapter is the parent's, too.
            self._release()

    def _release(self) -> None:
        self._is_open = False
        for source in self._sources:
            source.close()
        self._control.close()
        if self._lock is not None:
            self._lock.release()

    # --- what it is -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The present name; follows a rename by somebody else."""
        if self._is_open:
            with suppress(OSError):
                self._name, _ = kernel.get_interface(self._queues[0].fileno())
        return self._name

    @property
    def ifindex(self) -> int:
        """The kernel's number of the link; a rename does not change it."""
        return self._ifindex

    @property
    def adopted(self) -> bool:
        """The adapter was there before it was opened."""
        return self._adopted

    @property
    def is_open(self) -> bool:
        """`close` was not called yet."""
        return self._is_open

    @property
    def is_locked(self) -> bool:
        """This process holds the adapter lock."""
        return self._lock is not None and self._lock.is_effective

    @property
    def virtio_header_size(self) -> int:
        """Bytes of virtio-net header before each frame, both ways: 10, or 0 without."""
        return self._virtio_header_size

    @property
    def offloads(self) -> Offload:
        """The offloads that the kernel accepted."""
        return self._offloads

    @property
    def refused_offloads(self) -> Offload:
        """The offloads that were asked for and that this kernel does not have."""
        return self._refused_offloads

    # --- frames -----------------------------------------------------------------------------------

    @property
    def queues(self) -> tuple[Queue, ...]:
        """The queues; a single-queue adapter has one."""
        return self._queues

    @property
    def fds(self) -> tuple[int, ...]:
        """The non-blocking descriptors of all queues; empty after `close`."""
        return tuple(queue.fileno() for queue in self._queues) if self._is_open else ()

    def fileno(self) -> int:
        """Return the non-blocking descriptor of a single-queue adapter, for `select` and others.

        Raises:
            TapSettingsError: code `tap_queues`; there are several: use `fds`.
            TapError: code `tap_closed`.
        """
        self._check_open()
        if len(self._queues) > 1:
            raise TapSettingsError(
                "tap_queues", f"{self._name} has {len(self._queues)} queues; use its `fds` or its `queues`"
            )
        return self._queues[0].fileno()

    def write(self, frame: bytes | bytearray | memoryview) -> int:
        """Give one frame to the kernel, whole and without waiting; return its size in bytes.

        It goes through the first queue, and the kernel then puts the answers of that flow there. To keep a
        flow on another queue, write to that one: `queues[n].write`.

        Raises:
            TapError: codes `tap_down`, `tap_frame`, `tap_gone`, `tap_closed`, `tap_io`.
        """
        return self._queues[0].write(frame)

    # --- changes ----------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """The link is administratively up."""
        with self._asking("read the flags"):
            return self._control.is_up(self.name)

    def up(self) -> None:
        """Set the link administratively up; frames pass only then."""
        with self._asking("set it up"):
            self._control.set_up(self.name, True)

    def down(self) -> None:
        """Set the link administratively down."""
        with self._asking("set it down"):
            self._control.set_up(self.name, False)

    @property
    def mtu(self) -> int:
        """The largest payload of a frame, or the largest IP packet, in bytes."""
        with self._asking("read the MTU"):
            return self._control.mtu(self.name)

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU: 68 to 65521 bytes for a TAP, to 65535 for a TUN.

        Raises:
            TapSettingsError: code `tap_settings`; outside that range.
        """
        check_mtu(mtu, self.mode)
        if mtu != self.mtu:
            with self._asking(f"set MTU {mtu}"):
                self._control.set_mtu(self.name, mtu)

    @property
    def txqueuelen(self) -> int:
        """Frames that may wait for `read`; the kernel drops what comes beyond."""
        with self._asking("read the queue length"):
            return self._control.txqueuelen(self.name)

    def set_txqueuelen(self, frames: int) -> None:
        """Set how many frames may wait for `read`."""
        # An unprivileged owner may not set it, and need not where it is right already.
        if frames != self.txqueuelen:
            with self._asking(f"set txqueuelen {frames}"):
                self._control.set_txqueuelen(self.name, frames)

    def add_address(self, address: str) -> None:
        """Give the link an IPv4 or IPv6 address with its prefix length: `192.0.2.1/24`, `2001:db8::1/64`.

        An address that is there already is no error. It goes with the adapter.

        Raises:
            TapSettingsError: code `tap_settings`; not an address.
        """
        try:
            interface = ip_interface(address)
        except ValueError as error:
            raise TapSettingsError("tap_settings", f"{error} (192.0.2.1/24)") from error
        with self._asking(f"add address {address}"):
            self._control.add_address(self._ifindex, interface)

    def set_offloads(self, offloads: Offload) -> None:
        """Ask for exactly these offloads; `offloads` and `refused_offloads` then tell the result.

        Raises:
            TapSettingsError: code `tap_settings`; offloads without the virtio-net header.
        """
        if offloads and not self._virtio_header_size:
            raise TapSettingsError("tap_settings", f"{self._name}: offloads need the virtio-net header")
        with self._asking("set offloads"):
            self._offloads = _negotiate_offloads(self._queues[0].fileno(), offloads)
        self._refused_offloads = offloads & ~self._offloads

    def set_virtio_header_size(self, size: int) -> None:
        """Set the size of the virtio-net header, 10 or 12 bytes, of an adapter opened with one."""
        with self._asking(f"set the virtio-net header to {size} bytes"):
            kernel.set_header_size(self._queues[0].fileno(), size)
            self._virtio_header_size = kernel.get_header_size(self._queues[0].fileno())

    def set_owner(self, user: int) -> None:
        """Set the user id that may attach the adapter without CAP_NET_ADMIN."""
        with self._asking(f"set owner {user}"):
            fcntl.ioctl(self._queues[0], kernel.TUNSETOWNER, user)

    def set_group(self, group: int) -> None:
        """Set the group id that may attach the adapter without CAP_NET_ADMIN."""
        with self._asking(f"set group {group}"):
            fcntl.ioctl(self._queues[0], kernel.TUNSETGROUP, group)

    def set_persistent(self, persistent: bool) -> None:
        """Let the adapter stay when its last holder goes, or not."""
        with self._asking("set persistence"):
            fcntl.ioctl(self._queues[0], kernel.TUNSETPERSIST, int(persistent))

    def _check_open(self) -> None:
        if not self._is_open:
            raise TapError("tap_closed", f"adapter {self._name} is closed")

    @contextmanager
    def _asking(self, wish: str) -> Iterator[None]:
        self._check_open()
        try:
            yield
        except OSError as error:
            raise refusal(self._name, wish, error) from error


class TapAdapter(Adapter):
    """A TAP adapter: Ethernet frames, from the destination address on, without frame check sequence."""

    mode: Mode = "tap"

    @property
    def mac(self) -> MacAddress:
        """The address of the kernel's end of the adapter."""
        with self._asking("read the MAC address"):
            return self._control.mac(self.name)

    def set_mac(self, mac: MacAddress | str) -> None:
        """Give the adapter another address, also while it is up.

        Raises:
            TapSettingsError: code `mac_address`; not an address, multicast or zero.
        """
        address = station_address(mac)
        if address != self.mac:
            with self._asking(f"set MAC address {address}"):
                self._control.set_mac(self.name, address)


class TunAdapter(Adapter):
    """A TUN adapter: IPv4 and IPv6 packets, from the IP header on; it has no MAC address."""

    mode: Mode = "tun"


def _negotiate_offloads(queue: int, wanted: Offload) -> Offload:
    if kernel.try_offloads(queue, wanted):
        return wanted
    accepted = Offload.NONE
    for step in _OFFLOAD_STEPS:
        if wanted & step and kernel.try_offloads(queue, accepted | (wanted & step)):
            accepted |= wanted & step
    kernel.try_offloads(queue, accepted)
    return accepted
