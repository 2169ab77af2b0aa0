"""What is wished of one bridge, and what of it is ours on the host, as plain values.

Pure. The journal stores both under the names of their fields.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridged.addresses import MacAddress
from bridged.link_planning.links import HostAddress, HostRoute, Link
from bridged.link_planning.vlans import VlanRange


@dataclass(frozen=True, slots=True)
class BridgeTap:
    """A tunnel's TAP as a port. `mtu` None: that of the LAN ports; `queue_frames` None: no change."""

    name: str
    mtu: int | None = None
    queue_frames: int | None = None


@dataclass(frozen=True, slots=True)
class BridgeWish:
    """What the configuration wants of one bridge. None means: do not change it.

    `mac` None: a bridge that we make takes the address of the first existing port of `ports`, else
    `fallback_mac`, and keeps it whichever ports come and go. `mtu` applies to bridge, ports and TAPs (a TAP's
    own `mtu` comes first). `addresses` are text with prefix length. `vlans` are those of the TAPs on a
    VLAN-aware bridge; None: those of the LAN ports.
    """

    name: str
    ports: tuple[str, ...] = ()
    taps: tuple[BridgeTap, ...] = ()
    addresses: tuple[str, ...] = ()
    mtu: int | None = None
    mac: MacAddress | None = None
    fallback_mac: MacAddress | None = None
    stp: bool | None = None
    ageing_seconds: float | None = None
    forward_delay_seconds: float | None = None
    multicast_snooping: bool | None = None
    group_forward_mask: int | None = None
    move_addresses: bool = True
    vlans: tuple[VlanRange, ...] | None = None

    def covers(self, earlier: BridgeWish) -> bool:
        """Whether nothing that `earlier` asked for must be undone for this wish."""
        kept = all(
            getattr(self, name) is not None or getattr(earlier, name) is None
            for name in (
                *("mtu", "stp", "ageing_seconds", "forward_delay_seconds"),
                *("multicast_snooping", "group_forward_mask", "vlans"),
            )
        )
        taps = {tap.name for tap in self.taps}
        return (
            kept
            and self.name == earlier.name
            and self.mac == earlier.mac
            and self.move_addresses == earlier.move_addresses
            and set(earlier.ports) <= set(self.ports)
            and set(earlier.addresses) <= set(self.addresses)
            and {tap.name for tap in earlier.taps} <= taps
        )


@dataclass(frozen=True, slots=True)
class Ownership:
    """What is ours on the host for one bridge, and how it was before our changes.

    `bridge_before` is set for an adopted bridge. `bridge_index` distinguishes our bridge from one that
    somebody else made under its name. `mac_fixed`: we have set its address, so the kernel no longer chooses
    one as ports come and go. `links_before`: ports and TAPs. `handed_over` and `routes` name in `link` the
    port they came from; `added` and `added_routes` are those that we put on the bridge.
    """

    bridge_made: bool = False
    bridge_mac: MacAddress | None = None
    bridge_before: Link | None = None
    bridge_index: int | None = None
    mac_fixed: bool = False
    links_before: tuple[Link, ...] = ()
    handed_over: tuple[HostAddress, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    added: tuple[HostAddress, ...] = ()
    added_routes: tuple[HostRoute, ...] = ()

    def before(self, name: str) -> Link | None:
        return next((link for link in self.links_before if link.name == name), None)

    @property
    def is_empty(self) -> bool:
        return self == Ownership()
