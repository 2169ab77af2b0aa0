"""Single changes to the host's links, each with the change that undoes it.

A `LinkSetting` gives a link another value and is undone by the value before. The others come in pairs that
undo each other; `SetUp` and `RenewAddress` are undone by themselves, the other way round.

Source: rtnetlink(7).
Pure: an action says what to do; `netlink.perform` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeAlias, TypeVar

from bridged.addresses import MacAddress
from bridged.link_planning.links import BridgeSettings, HostAddress, HostRoute, Inet6Settings
from bridged.link_planning.vlans import VlanRange

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class LinkSetting(Generic[Value]):
    """Give `link` another `value`. `was`: the one that it has now."""

    name: ClassVar[str]
    link: str
    value: Value
    was: Value

    def inverse(self) -> Self:
        return type(self)(self.link, self.was, self.value)


class SetSettings(LinkSetting[BridgeSettings]):
    """A bridge's settings. Only what differs is written."""

    __slots__ = ()
    name = "settings"


class SetMac(LinkSetting[MacAddress]):
    """The bridge's MAC address, also where it stays the same: from then on the kernel does not choose it."""

    __slots__ = ()
    name = "mac"


class SetMtu(LinkSetting[int]):
    """MTU in bytes of payload."""

    __slots__ = ()
    name = "mtu"


class SetQueue(LinkSetting[int]):
    """Transmit queue length in frames."""

    __slots__ = ()
    name = "queue"


class SetMulticastRouter(LinkSetting[int]):
    """Of a bridge port: 0 never gets all multicast, 1 as learned, 2 always."""

    __slots__ = ()
    name = "multicast_router"


class SetVlans(LinkSetting[tuple[VlanRange, ...]]):
    """The VLANs of a port of a VLAN-aware bridge."""

    __slots__ = ()
    name = "vlans"


class SetInet6(LinkSetting[Inet6Settings]):
    """What a link makes of routers' advertisements. Only what differs is written."""

    __slots__ = ()
    name = "inet6"


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
class _WholeBridge:
    name: ClassVar[str]
    link: str
    mac: MacAddress
    settings: BridgeSettings


class CreateBridge(_WholeBridge):
    """Make the bridge, down and without ports."""

    __slots__ = ()
    name = "create"

    def inverse(self) -> DeleteBridge:
        return DeleteBridge(self.link, self.mac, self.settings)


class DeleteBridge(_WholeBridge):
    """Remove the bridge; ports and addresses that are still on it lose it."""

    __slots__ = ()
    name = "delete"

    def inverse(self) -> CreateBridge:
        return CreateBridge(self.link, self.mac, self.settings)


@dataclass(frozen=True, slots=True)
class _Membership:
    name: ClassVar[str]
    link: str
    bridge: str


class Attach(_Membership):
    """Make `link` a port of `bridge`."""

    __slots__ = ()
    name = "attach"

    def inverse(self) -> Detach:
        return Detach(self.link, self.bridge)


class Detach(_Membership):
    """Take the port `link` out of `bridge`."""

    __slots__ = ()
    name = "detach"

    def inverse(self) -> Attach:
        return Attach(self.link, self.bridge)


@dataclass(frozen=True, slots=True)
class _OfAddress:
    name: ClassVar[str] = "address"
    address: HostAddress

    @property
    def link(self) -> str:
        return self.address.link


class AddAddress(_OfAddress):
    """Add an address that is not there. Routes to its network come by themselves."""

    __slots__ = ()

    def inverse(self) -> DeleteAddress:
        return DeleteAddress(self.address)


class DeleteAddress(_OfAddress):
    """Remove an address. Routes to its network go by themselves."""

    __slots__ = ()

    def inverse(self) -> AddAddress:
        return AddAddress(self.address)


@dataclass(frozen=True, slots=True)
class RenewAddress(_OfAddress):
    """Give an address that is there the lifetimes of `address`."""

    was: HostAddress

    def inverse(self) -> RenewAddress:
        return RenewAddress(self.was, self.address)


@dataclass(frozen=True, slots=True)
class _OfRoute:
    name: ClassVar[str] = "route"
    route: HostRoute

    @property
    def link(self) -> str:
        return self.route.link or self.route.nexthops[0].link


class AddRoute(_OfRoute):
    """Add a route beside others to the same destination, so that none is replaced by accident."""

    __slots__ = ()

    def inverse(self) -> DeleteRoute:
        return DeleteRoute(self.route)


class DeleteRoute(_OfRoute):
    """Remove a route."""

    __slots__ = ()

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
    """What undoes `actions` that were done in their order."""
    return [action.inverse() for action in reversed(actions)]


def described(actions: Iterable[Action]) -> str:
    """For logs: `create br0, attach eth1, …`."""
    return ", ".join(f"{action.name} {action.link}" for action in actions)
