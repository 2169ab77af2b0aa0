"""TAP adapters of a network namespace, each with its settings and its holder.

Source: links.py for the links, lock.py for the holders.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridged.addresses import MacAddress
from bridged.errors import TapError
from bridged_tap.links import Link, list_links
from bridged_tap.lock import find_holder


@dataclass(frozen=True, slots=True)
class TapInfo:
    """What there is to know of a TAP adapter from outside.

    mtu: octets. txqueuelen: frames. queues: attached ones; None for a single-queue adapter.
    held: a process has it, named by holder_pid and holder_command where they can be seen.
    """

    name: str
    ifindex: int
    mac: MacAddress
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


def list_taps() -> tuple[TapInfo, ...]:
    """All TAP adapters of the calling thread's network namespace, by ifindex.

    Raises:
        TapError: code `tap_links`; the kernel did not answer.
    """
    links = list_links()
    names = {link.ifindex: link.name for link in links}
    return tuple(_describe(link, names) for link in links if link.is_tap)


def show_tap(name: str) -> TapInfo:
    """One TAP adapter.

    Raises:
        TapError: code `tap_missing` or `tap_not_a_tap`.
    """
    links = list_links()
    link = next((link for link in links if link.name == name), None)
    if link is None:
        raise TapError("tap_missing", f"there is no adapter named {name}")
    if not link.is_tap:
        kind = "TUN device" if link.kind == "tun" else f"{link.kind or 'network'} link"
        raise TapError("tap_not_a_tap", f"{name} is a {kind}, not a TAP adapter")
    return _describe(link, {link.ifindex: link.name for link in links})


def _describe(link: Link, names: dict[int, str]) -> TapInfo:
    holder = find_holder(link.name)
    return TapInfo(
        name=link.name,
        ifindex=link.ifindex,
        mac=link.mac or MacAddress(bytes(6)),
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
