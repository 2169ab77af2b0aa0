"""Opening, making and deleting TAP adapters, under the adapter lock.

Source: Linux `Documentation/networking/tuntap.rst`, `drivers/net/tun.c` for the refusals (tun_set_iff).
Acts in the network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import Final

from bridged.errors import AdapterLockedError, TapError
from bridged_tap import kernel
from bridged_tap.adapter import TapAdapter
from bridged_tap.links import Link, find_link
from bridged_tap.lock import AdapterLock, Holder, find_attached, find_holder, lock_adapter
from bridged_tap.settings import TapSettings

_HEADER_OCTETS: Final = 10


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
    if settings.virtio_header:
        # A former holder (QEMU sets 12) may have left another size with a persistent adapter.
        adapter.set_virtio_header_size(_HEADER_OCTETS)
    if settings.owner is not None:
        adapter.set_owner(settings.owner)
    if settings.group is not None:
        adapter.set_group(settings.group)
    # Offloads of a former holder would otherwise reach us as super-frames we did not ask for.
    adapter.set_offloads(settings.offloads)
    if settings.mac is not None:
        adapter.set_mac(settings.mac)
    if settings.mtu is not None:
        adapter.set_mtu(settings.mtu)
    if settings.txqueuelen is not None:
        adapter.set_txqueuelen(settings.txqueuelen)
    if settings.persistent:
        # Last, so that a failure before it leaves nothing behind.
        adapter.set_persistent(True)


def _close_all(queues: list[int]) -> None:
    for queue in queues:
        os.close(queue)
