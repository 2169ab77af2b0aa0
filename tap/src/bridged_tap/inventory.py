"""Adapters of a network namespace, each with its settings and its holder.

Source: links.py for the links, lock.py for the holders.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridged_tap.addresses import MacAddress
from bridged_tap.errors import TapError
from bridged_tap.links import Link, list_links
from bridged_tap.lock import find_holder
from bridged_tap.settings import Mode


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What there is to know of an adapter from outside.

    - `mac`: None for a TUN. `mtu`: bytes. `txqueuelen`: frames.
    - `master`: the bridge or bond that it is a port of.
    - `queues`: those that processes have open; None for a single-queue adapter.
    - `owner`, `group`: numbers of those who may open it without CAP_NET_ADMIN.
    - `held`: a process has it; `holder_pid` and `holder_command` where they can be seen.
    """

    name: str
    mode: Mode
    ifindex: int
    mac: MacAddress | None
    mtu: int
    txqueuelen: int
    up: bool
    carrier: bool
    master: str | None
    persistent: bool
    multi_queue: bool
    queues: int | None
    virtio_header: bool
    owner: int | None
    group: int | None
    held: bool
    holder_pid: int | None
    holder_command: str | None


def list_adapters() -> tuple[AdapterInfo, ...]:
    """All TAP and TUN adapters of the calling thread's network namespace, by ifindex.

    Raises:
        TapError: code `tap_links`; the kernel did not answer.
    """
    links = list_links()
    names = {link.ifindex: link.name for link in links}
    return tuple(_describe(link, link.mode, names) for link in links if link.mode is not None)


def adapter_info(name: str) -> AdapterInfo:
    """One TAP or TUN adapter.

    Raises:
        TapError: codes `tap_missing`, also where another kind of link has the name, and `tap_links`.
    """
    links = list_links()
    link = next((link for link in links if link.name == name), None)
    if link is None:
        raise TapError("tap_missing", f"there is no adapter named {name}")
    if link.mode is None:
        raise TapError("tap_missing", f"{name} is a {link.kind or 'network'} link, not a TAP or TUN adapter")
    return _describe(link, link.mode, {link.ifindex: link.name for link in links})


def _describe(link: Link, mode: Mode, names: dict[int, str]) -> AdapterInfo:
    holder = find_holder(link.name)
    return AdapterInfo(
        name=link.name,
        mode=mode,
        ifindex=link.ifindex,
        mac=link.mac,
        mtu=link.mtu,
        txqueuelen=link.txqueuelen,
        up=link.up,
        carrier=link.carrier,
        master=names.get(link.master_ifindex) if link.master_ifindex else None,
        persistent=link.persistent,
        multi_queue=link.multi_queue,
        queues=link.queues,
        virtio_header=link.virtio_header,
        owner=link.owner,
        group=link.group,
        held=holder is not None,
        holder_pid=holder.pid if holder else None,
        holder_command=holder.command if holder else None,
    )
