"""Single changes to the host's links, each with the change that undoes it.

Source: rtnetlink(7).
Pure: an action says what to do; `netlink` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from bridged.addresses import MacAddress
from bridged.link_planning.links import BridgeSettings, HostAddress, HostRoute, Inet6Settings
from bridged.link_planning.vlans import VlanRange


@dataclass(frozen=True, slots=True)
class CreateBridge:
    """Make the bridge, down and without ports."""

    name: ClassVar[str] = "create"
    link: str
    mac: MacAddress
    settings: BridgeSettings

    def inverse(self) -> DeleteBridge:
        return DeleteBridge(self.link, self.mac, self.settings)


@dataclass(frozen=True, slots=True)
class DeleteBridge:
    """Remove the bridge; ports and addresses that are still on it lose it."""

    name: ClassVar[str] = "delete"
    link: str
    mac: MacAddress
    settings: BridgeSettings

    def inverse(self) -> CreateBridge:
        return CreateBridge(self.link, self.mac, self.settings)


@dataclass(frozen=True, slots=True)
class SetSettings:
    """Change a bridge's settings; only what differs from `was` is written."""

    name: ClassVar[str] = "settings"
    link: str
    settings: BridgeSettings
    was: BridgeSettings

    def inverse(self) -> SetSettings:
        return SetSettings(self.link, self.was, self.settings)


@dataclass(frozen=True, slots=True)
class SetMac:
    """Set the bridge's MAC address, also to what it is: from then on the kernel does not choose it anew."""

    name: ClassVar[str] = "mac"
    link: str
    mac: MacAddress
    was: MacAddress

    def inverse(self) -> SetMac:
        return SetMac(self.link, self.was, self.mac)


@dataclass(frozen=True, slots=True)
class SetMtu:
    """MTU in octets of payload."""

    name: ClassVar[str] = "mtu"
    link: str
    mtu: int
    was: int

    def inverse(self) -> SetMtu:
        return SetMtu(self.link, self.was, self.mtu)


@dataclass(frozen=True, slots=True)
class SetQueue:
    """Transmit queue length in frames."""

    name: ClassVar[str] = "queue"
    link: str
    frames: int
    was: int

    def inverse(self) -> SetQueue:
        return SetQueue(self.link, self.was, self.frames)


@dataclass(frozen=True, slots=True)
class SetUp:
    """Bring a link up or down.

    Down drops the routes by it and its IPv6 addresses; those in `keeps` are added again.
    """

    name: ClassVar[str] = "up"
    link: str
    up: bool
    keeps: tuple[HostAddress, ...] = ()

    def inverse(self) -> SetUp:
        return SetUp(self.link, not self.up, self.keeps)


@dataclass(frozen=True, slots=True)
class Attach:
    """Make `link` a port of `bridge`."""

    name: ClassVar[str] = "attach"
    link: str
    bridge: str

    def inverse(self) -> Detach:
        return Detach(self.link, self.bridge)


@dataclass(frozen=True, slots=True)
class Detach:
    """Take the port `link` out of `bridge`."""

    name: ClassVar[str] = "detach"
    link: str
    bridge: str

    def inverse(self) -> Attach:
        return Attach(self.link, self.bridge)


@dataclass(frozen=True, slots=True)
class SetMulticastRouter:
    """Bridge port setting: 0 never, 1 as learned, 2 always gets all multicast."""

    name: ClassVar[str] = "multicast_router"
    link: str
    value: int
    was: int

    def inverse(self) -> SetMulticastRouter:
        return SetMulticastRouter(self.link, self.was, self.value)


@dataclass(frozen=True, slots=True)
class SetVlans:
    """The VLANs of a port of a VLAN-aware bridge."""

    name: ClassVar[str] = "vlans"
    link: str
    vlans: tuple[VlanRange, ...]
    was: tuple[VlanRange, ...]

    def inverse(self) -> SetVlans:
        return SetVlans(self.link, self.was, self.vlans)


@dataclass(frozen=True, slots=True)
class SetInet6:
    """What a link makes of routers' advertisements; only what differs from `was` is written."""

    name: ClassVar[str] = "inet6"
    link: str
    settings: Inet6Settings
    was: Inet6Settings

    def inverse(self) -> SetInet6:
        return SetInet6(self.link, self.was, self.settings)


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Add an address that is not there. Routes to its network come by themselves."""

    name: ClassVar[str] = "address"
    address: HostAddress

    @property
    def link(self) -> str:
        return self.address.link

    def inverse(self) -> DeleteAddress:
        return DeleteAddress(self.address)


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    name: ClassVar[str] = "address"
    address: HostAddress

    @property
    def link(self) -> str:
        return self.address.link

    def inverse(self) -> AddAddress:
        return AddAddress(self.address)


@dataclass(frozen=True, slots=True)
class RenewAddress:
    """Give an address that is there the lifetimes of `address`."""

    name: ClassVar[str] = "address"
    address: HostAddress
    was: HostAddress

    @property
    def link(self) -> str:
        return self.address.link

    def inverse(self) -> RenewAddress:
        return RenewAddress(self.was, self.address)


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a route beside others to the same destination, so that none is replaced by accident."""

    name: ClassVar[str] = "route"
    route: HostRoute

    @property
    def link(self) -> str:
        return self.route.link or self.route.nexthops[0].link

    def inverse(self) -> DeleteRoute:
        return DeleteRoute(self.route)


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    name: ClassVar[str] = "route"
    route: HostRoute

    @property
    def link(self) -> str:
        return self.route.link or self.route.nexthops[0].link

    def inverse(self) -> AddRoute:
        return AddRoute(self.route)


Action: TypeAlias = (
    CreateBridge
    | DeleteBridge
    | SetSettings
    | SetMac
    | SetMtu
    | SetQueue
    | SetUp
    | Attach
    | Detach
    | SetMulticastRouter
    | SetVlans
    | SetInet6
    | AddAddress
    | DeleteAddress
    | RenewAddress
    | AddRoute
    | DeleteRoute
)


def inverse(actions: Sequence[Action]) -> list[Action]:
    """What takes `actions`, done in their order, back."""
    return [action.inverse() for action in reversed(actions)]


def described(actions: Iterable[Action]) -> str:
    """For logs: `create br0, attach eth1, …`."""
    return ", ".join(f"{action.name} {action.link}" for action in actions)
