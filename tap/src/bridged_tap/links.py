"""Looking at links without attaching to them: TAP adapters, and every MAC address the kernel knows.

Source: rtnetlink(7); Linux `include/uapi/linux/if_link.h` (IFLA_TUN_*), `neighbour.h`.
Asks by rtnetlink, because /sys shows the namespace it was mounted in, not the one the caller is in. Needs
Linux 4.20 (IFLA_TUN_*).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from bridged_tap.addresses import MacAddress
from bridged_tap.rtnetlink import Attributes, dump, number_of, parse_attributes
from bridged_tap.settings import Mode

_RTM_NEWLINK: Final = 16
_RTM_GETLINK: Final = 18
_RTM_NEWNEIGH: Final = 28
_RTM_GETNEIGH: Final = 30
_AF_BRIDGE: Final = 7

_IFLA_ADDRESS: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_MASTER: Final = 10
_IFLA_TXQLEN: Final = 13
_IFLA_LINKINFO: Final = 18
_IFLA_CARRIER: Final = 33
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_TUN_OWNER: Final = 1
_TUN_GROUP: Final = 2
_TUN_TYPE: Final = 3
_TUN_VNET_HDR: Final = 5
_TUN_PERSIST: Final = 6
_TUN_MULTI_QUEUE: Final = 7
_TUN_NUM_QUEUES: Final = 8
_TUN_NUM_DISABLED: Final = 9
_MODES: Final[dict[int, Mode]] = {1: "tun", 2: "tap"}
"""IFF_TUN, IFF_TAP."""
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_NUD_PERMANENT: Final = 0x80


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the present network namespace, as far as this library cares.

    kind: "tun", "bridge", "veth"…, empty for hardware. tun: IFLA_TUN_* of a TUN/TAP, else empty.
    """

    name: str
    ifindex: int
    mac: MacAddress | None
    mtu: int
    txqueuelen: int
    up: bool
    carrier: bool
    master_ifindex: int
    kind: str
    tun: Attributes

    @property
    def mode(self) -> Mode | None:
        """None for a link that is neither a TAP nor a TUN adapter."""
        return _MODES.get(number_of(self.tun, _TUN_TYPE)) if self.kind == "tun" else None

    @property
    def persistent(self) -> bool:
        return bool(number_of(self.tun, _TUN_PERSIST))

    @property
    def multi_queue(self) -> bool:
        return bool(number_of(self.tun, _TUN_MULTI_QUEUE))

    @property
    def virtio_header(self) -> bool:
        return bool(number_of(self.tun, _TUN_VNET_HDR))

    @property
    def queues(self) -> int | None:
        """Queues that processes hold now; None for a single-queue adapter (the kernel does not tell)."""
        if not self.multi_queue:
            return None
        return number_of(self.tun, _TUN_NUM_QUEUES) + number_of(self.tun, _TUN_NUM_DISABLED)

    @property
    def owner(self) -> int | None:
        return number_of(self.tun, _TUN_OWNER) if _TUN_OWNER in self.tun else None

    @property
    def group(self) -> int | None:
        return number_of(self.tun, _TUN_GROUP) if _TUN_GROUP in self.tun else None


def list_links() -> tuple[Link, ...]:
    """All links of the calling thread's network namespace, by ifindex.

    Raises:
        TapError: code `tap_links`; the kernel did not answer.
    """
    request = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    links = [_parse_link(body) for kind, body in dump(_RTM_GETLINK, request) if kind == _RTM_NEWLINK]
    return tuple(sorted(links, key=lambda link: link.ifindex))


def find_link(name: str) -> Link | None:
    """The link of that name in the calling thread's network namespace, or None."""
    return next((link for link in list_links() if link.name == name), None)


def address_owners(except_link: str | None = None) -> dict[MacAddress, str]:
    """The unicast MAC addresses that the kernel knows, each with words that say who has it.

    They belong to links, stations in bridges, and IPv4 and IPv6 neighbours. The present address of
    `except_link` does not count where it is that adapter's own: on the link, on its bridge, in permanent
    FDB entries of either.

    Raises:
        TapError: code `tap_links`; the kernel did not answer.
    """
    links = list_links()
    names = {link.ifindex: link.name for link in links}
    own = next((link for link in links if link.name == except_link), None)
    selves = {own.ifindex, own.master_ifindex} if own else set()
    owners = {
        link.mac: f"link {link.name}"
        for link in links
        if link.mac is not None and not (own and link.ifindex in selves and link.mac == own.mac)
    }
    for family, kind in ((_AF_BRIDGE, "station"), (socket.AF_UNSPEC, "neighbour")):
        for ifindex, state, mac, address in _list_neighbours(family):
            if own and mac == own.mac and ifindex in selves and state & _NUD_PERMANENT:
                continue
            place = f"on {names.get(ifindex, f'link {ifindex}')}"
            owners.setdefault(mac, " ".join(word for word in (kind, address, place) if word))
    return {mac: owner for mac, owner in owners.items() if not (mac.is_multicast or mac.is_zero)}


def kernel_addresses(except_link: str | None = None) -> frozenset[MacAddress]:
    """The addresses of `address_owners`, for `draw_mac` and `choose_mac`.

    Raises:
        TapError: code `tap_links`; the kernel did not answer.
    """
    return frozenset(address_owners(except_link))


def _list_neighbours(family: int) -> Iterator[tuple[int, int, MacAddress, str]]:
    """ifindex, NUD state, MAC address and IP address (empty in the FDB) of each entry."""
    request = struct.pack("=BxHiHBB", family, 0, 0, 0, 0, 0)
    for kind, body in dump(_RTM_GETNEIGH, request):
        if kind != _RTM_NEWNEIGH:
            continue
        _, _, ifindex, state, _, _ = struct.unpack_from("=BxHiHBB", body)
        attributes = parse_attributes(body[12:])
        mac, ip = attributes.get(_NDA_LLADDR, b""), attributes.get(_NDA_DST, b"")
        if len(mac) == 6:
            yield ifindex, state, MacAddress(mac), str(ip_address(ip)) if len(ip) in {4, 16} else ""


def _parse_link(body: bytes) -> Link:
    _, _, ifindex, flags, _ = struct.unpack_from("=BxHiII", body)
    attributes = parse_attributes(body[16:])
    info = parse_attributes(attributes.get(_IFLA_LINKINFO, b""))
    kind = info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
    address = attributes.get(_IFLA_ADDRESS, b"")
    return Link(
        name=attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        ifindex=ifindex,
        mac=MacAddress(address) if len(address) == 6 else None,
        mtu=number_of(attributes, _IFLA_MTU),
        txqueuelen=number_of(attributes, _IFLA_TXQLEN),
        up=bool(flags & 1),
        carrier=bool(number_of(attributes, _IFLA_CARRIER)),
        master_ifindex=number_of(attributes, _IFLA_MASTER),
        kind=kind,
        tun=parse_attributes(info.get(_IFLA_INFO_DATA, b"")) if kind == "tun" else {},
    )
