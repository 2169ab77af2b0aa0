"""Opening, making and deleting adapters, under the adapter lock.

Source: Linux `Documentation/networking/tuntap.rst`, `drivers/net/tun.c` for the refusals (tun_set_iff).
Acts in the network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TypeVar

from bridged_tap import kernel
from bridged_tap.adapter import Adapter, TapAdapter, TunAdapter
from bridged_tap.addresses import MacAddress, station_address
from bridged_tap.errors import AdapterLockedError, TapError
from bridged_tap.links import Link, find_link
from bridged_tap.lock import AdapterLock, Holder, find_attached, find_holder, lock_adapter
from bridged_tap.settings import TXQUEUELEN_DEFAULT, AdapterSettings, Offload, group_id, user_id
from bridged_tap.virtio import VirtioHeader

Opened = TypeVar("Opened", bound=Adapter)

_KIND_FLAGS = (
    kernel.IFF_TAP | kernel.IFF_TUN | kernel.IFF_NO_PI | kernel.IFF_VNET_HDR | kernel.IFF_MULTI_QUEUE
)


def open_tap(
    name: str = "tap%d",
    *,
    mac: MacAddress | str | None = None,
    mtu: int | None = None,
    queues: int = 1,
    virtio_header: bool = False,
    offloads: Offload = Offload.NONE,
    persistent: bool = False,
    owner: int | str | None = None,
    group: int | str | None = None,
    txqueuelen: int | None = TXQUEUELEN_DEFAULT,
    lock: bool = True,
) -> TapAdapter:
    """Open a TAP adapter: attach to the one of that name, or make it. It stays down until `up()`.

    None leaves what a present adapter has. On failure nothing that was made stays behind.

    - `name`: 1 to 15 bytes; one `%d` in it stands for the first free number.
    - `mac`: address of the kernel's end. A new adapter without one gets a random one from the kernel.
    - `mtu`: bytes of payload, 68 to 65521.
    - `queues`: 1 to 256; more than one makes a multi-queue adapter.
    - `virtio_header`: a `VirtioHeader` of 10 bytes stands before each frame, both ways.
    - `offloads`: what the kernel may leave to the reader; needs `virtio_header`.
    - `persistent`: the adapter stays when its last holder goes. A persistent one stays so with False, too.
    - `owner`, `group`: user and group, by number or name, that may open it without CAP_NET_ADMIN.
    - `txqueuelen`: frames that may wait for `read`; the kernel drops what comes beyond.
    - `lock`: refuse an adapter that another process has, and keep others away.

    Raises:
        TapSettingsError: an argument is wrong; codes `tap_settings`, `mac_address`.
        AdapterLockedError: another process has the adapter.
        TapError: codes `tap_unavailable`, `tap_permission`, `tap_not_a_tap`, `tap_queues`, `tap_busy`,
            `tap_io`, `tap_links`, `tap_lock`.
    """
    settings = AdapterSettings(
        name=name,
        persistent=persistent,
        mac=None if mac is None else station_address(mac),
        mtu=mtu,
        txqueuelen=txqueuelen,
        owner=user_id(owner),
        group=group_id(group),
        virtio_header=virtio_header,
        offloads=offloads,
        queues=queues,
        lock=lock,
    )
    return _open(settings, TapAdapter)


def inherit_tap(
    descriptors: Sequence[int],
    name: str,
    *,
    mac: MacAddress | str | None = None,
    mtu: int | None = None,
    queues: int = 1,
    virtio_header: bool = False,
    offloads: Offload = Offload.NONE,
    persistent: bool = False,
    txqueuelen: int | None = TXQUEUELEN_DEFAULT,
    lock: bool = True,
) -> TapAdapter:
    """Continue with a TAP adapter whose descriptors a predecessor left, one for each queue in its order.

    The link stays up and keeps its number. Other arguments as in `open_tap`. From now on the descriptors are
    the adapter's; after an error they are still the caller's.

    Raises:
        AdapterLockedError: another process has the adapter.
        TapError: code `tap_gone`: somebody deleted it; `tap_queues`: it is not what the arguments say.
    """
    settings = AdapterSettings(
        name=name,
        persistent=persistent,
        mac=None if mac is None else station_address(mac),
        mtu=mtu,
        txqueuelen=txqueuelen,
        virtio_header=virtio_header,
        offloads=offloads,
        queues=queues,
        lock=lock,
    )
    disabled = _check_inherited(settings, descriptors)
    with ExitStack() as undo:
        control = undo.enter_context(kernel.LinkControl())
        # Not for `find_attached`: whoever kept the descriptors for us has the adapter attached, too.
        held = lock_adapter(name) if lock else None
        if held is not None:
            undo.callback(held.release)
        try:
            ifindex = control.ifindex(name)
        except OSError as error:
            raise TapError("tap_gone", f"{name} was deleted", error.errno) from error
        adapter = TapAdapter(name, ifindex, descriptors, control, held, adopted=True, disabled=disabled)
        try:
            _configure(adapter, settings)
        except BaseException:
            adapter.disown()
            raise
        undo.pop_all()
        return adapter


def open_tun(
    name: str = "tun%d",
    *,
    mtu: int | None = None,
    queues: int = 1,
    virtio_header: bool = False,
    offloads: Offload = Offload.NONE,
    persistent: bool = False,
    owner: int | str | None = None,
    group: int | str | None = None,
    txqueuelen: int | None = TXQUEUELEN_DEFAULT,
    lock: bool = True,
) -> TunAdapter:
    """Open a TUN adapter, which carries IP packets; the arguments are those of `open_tap`.

    `mtu`: bytes of an IP packet, 68 to 65535.

    Raises:
        TapSettingsError, AdapterLockedError, TapError: as `open_tap`, with `tap_not_a_tun` for
            `tap_not_a_tap`.
    """
    settings = AdapterSettings(
        name=name,
        mode="tun",
        persistent=persistent,
        mtu=mtu,
        txqueuelen=txqueuelen,
        owner=user_id(owner),
        group=group_id(group),
        virtio_header=virtio_header,
        offloads=offloads,
        queues=queues,
        lock=lock,
    )
    return _open(settings, TunAdapter)


def create_tap(
    name: str = "tap%d",
    *,
    mac: MacAddress | str | None = None,
    mtu: int | None = None,
    multi_queue: bool = False,
    owner: int | str | None = None,
    group: int | str | None = None,
    txqueuelen: int | None = TXQUEUELEN_DEFAULT,
) -> str:
    """Make a persistent TAP adapter that no process holds; returns its name. Arguments as in `open_tap`.

    `multi_queue`: it may be opened with several queues later.

    Raises:
        TapError: code `tap_exists`, or what `open_tap` raises.
    """
    settings = AdapterSettings(
        name=name,
        mac=None if mac is None else station_address(mac),
        mtu=mtu,
        txqueuelen=txqueuelen,
        owner=user_id(owner),
        group=group_id(group),
        queues=2 if multi_queue else 1,
    )
    return _create(settings, TapAdapter)


def create_tun(
    name: str = "tun%d",
    *,
    mtu: int | None = None,
    multi_queue: bool = False,
    owner: int | str | None = None,
    group: int | str | None = None,
    txqueuelen: int | None = TXQUEUELEN_DEFAULT,
) -> str:
    """Make a persistent TUN adapter that no process holds; see `create_tap`.

    Raises:
        TapError: code `tap_exists`, or what `open_tun` raises.
    """
    settings = AdapterSettings(
        name=name,
        mode="tun",
        mtu=mtu,
        txqueuelen=txqueuelen,
        owner=user_id(owner),
        group=group_id(group),
        queues=2 if multi_queue else 1,
    )
    return _create(settings, TunAdapter)


def delete_adapter(name: str) -> None:
    """Delete a persistent TAP or TUN adapter that nobody holds.

    Raises:
        AdapterLockedError: a process has it.
        TapError: code `tap_missing`, or what `open_tap` raises.
    """
    link = find_link(name)
    if link is None or link.mode is None:
        raise TapError("tap_missing", f"there is no TAP or TUN adapter named {name}")
    settings = AdapterSettings(name=name, mode=link.mode, txqueuelen=None)
    with _open(settings, TunAdapter if link.mode == "tun" else TapAdapter) as adapter:
        adapter.set_persistent(False)


def _create(settings: AdapterSettings, kind: type[Adapter]) -> str:
    if not settings.has_pattern and find_link(settings.name) is not None:
        raise TapError("tap_exists", f"a link named {settings.name} exists already")
    with _open(settings, kind) as adapter:
        if adapter.adopted:
            raise TapError("tap_exists", f"a link named {settings.name} exists already")
        adapter.set_persistent(True)
        return adapter.name


def _open(settings: AdapterSettings, kind: type[Opened]) -> Opened:
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
            ifindex = control.ifindex(name)
        except OSError as error:
            raise TapError("tap_gone", f"{name} vanished while it was opened", error.errno) from error
        adapter = kind(name, ifindex, queues, control, lock, adopted=present is not None)
        undo.pop_all()
        undo.callback(adapter.close)
        _configure(adapter, settings)
        undo.pop_all()
        return adapter


def _claim(settings: AdapterSettings) -> tuple[AdapterLock | None, Link | None]:
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


def _check_inherited(settings: AdapterSettings, descriptors: Sequence[int]) -> frozenset[int]:
    """Whether the descriptors are queues of the adapter of the settings. Returns which are out of service."""
    wanted = kernel.IFF_TAP | kernel.IFF_NO_PI
    wanted |= kernel.IFF_VNET_HDR if settings.virtio_header else 0
    wanted |= kernel.IFF_MULTI_QUEUE if settings.queues > 1 else 0
    if len(descriptors) != settings.queues:
        text = f"{settings.name} was left with {len(descriptors)} queues, and {settings.queues} are wanted"
        raise TapError("tap_queues", text)
    disabled: set[int] = set()
    for number, descriptor in enumerate(descriptors):
        try:
            name, flags = kernel.get_interface(descriptor)
        except OSError as error:
            raise TapError("tap_gone", f"{settings.name} was deleted", error.errno) from error
        if name != settings.name or flags & _KIND_FLAGS != wanted:
            text = f"queue {number} that was left for {settings.name} is of {name}, with flags {flags:#x}"
            raise TapError("tap_queues", text)
        if flags & kernel.IFF_DETACH_QUEUE:
            disabled.add(number)
    return frozenset(disabled)


def _check_attachable(settings: AdapterSettings, present: Link | None) -> None:
    if present is None:
        return
    if present.mode != settings.mode:
        is_a = {"tap": "a TAP adapter", "tun": "a TUN adapter"}
        kind = is_a[present.mode] if present.mode else f"a {present.kind or 'network'} link"
        raise TapError(
            f"tap_not_a_{settings.mode}",
            f"{present.name} is {kind}, not {is_a[settings.mode]}; choose another name or delete it",
        )
    if settings.queues > 1 and not present.multi_queue:
        raise TapError(
            "tap_queues",
            f"{present.name} exists with a single queue, and {settings.queues} are wanted; delete it "
            f"(ip link delete {present.name}), or open one queue",
        )


def _attach_queues(settings: AdapterSettings, present: Link | None, queues: list[int]) -> str:
    """Open and attach `settings.queues` descriptors, appending each to `queues` at once."""
    flags = kernel.IFF_NO_PI | (kernel.IFF_TUN if settings.mode == "tun" else kernel.IFF_TAP)
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


def _attach_refused(settings: AdapterSettings, name: str, error: OSError) -> TapError:
    if error.errno == errno.EBUSY:
        if settings.lock:
            attached = find_attached(name) or Holder(None, None, None)
            return AdapterLockedError(name, attached.pid, attached.command)
        holder = find_holder(name)
        who = f"process {holder.pid} ({holder.command})" if holder and holder.pid else "another process"
        return TapError(
            "tap_busy",
            f"{name} is attached by {who}; only one process can have a single-queue adapter",
            error.errno,
        )
    if error.errno in {errno.EPERM, errno.EACCES}:
        return TapError(
            "tap_permission",
            f"this user may not open {name}; run as root (CAP_NET_ADMIN), or have root create it with this "
            "user as owner",
            error.errno,
        )
    return TapError("tap_io", f"{name} cannot be opened: {error.strerror}", error.errno)


def _configure(adapter: Adapter, settings: AdapterSettings) -> None:
    if settings.virtio_header:
        # A former holder (QEMU sets 12) may have left another size with a persistent adapter.
        adapter.set_virtio_header_size(VirtioHeader.SIZE)
    if settings.owner is not None:
        adapter.set_owner(settings.owner)
    if settings.group is not None:
        adapter.set_group(settings.group)
    # Offloads of a former holder would otherwise reach us as super-frames we did not ask for.
    adapter.set_offloads(settings.offloads)
    if settings.mac is not None and isinstance(adapter, TapAdapter):
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
