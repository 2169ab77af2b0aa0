"""Wished minus observed: what to change on the host so that one bridge is as configured.

`plan` is empty where nothing is left to change; `undoing.plan_undo` undoes it.

An address leaves its port last: before that, it is on the bridge and the routes go by the bridge. The host is
never without it.

Pure: no netlink, no clock; `HostLinks.now` is the time of the observation.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridged.addresses import MacAddress
from bridged.errors import ConfigurationError
from bridged.link_planning.actions import (
    Action,
    Attach,
    CreateBridge,
    SetInet6,
    SetMac,
    SetMtu,
    SetMulticastRouter,
    SetQueue,
    SetSettings,
    SetUp,
    SetVlans,
)
from bridged.link_planning.holdings import Holdings
from bridged.link_planning.links import (
    MULTICAST_ROUTER_ALWAYS,
    BridgeSettings,
    HostLinks,
    Inet6Settings,
    Link,
)
from bridged.link_planning.vlans import VlanRange, joined
from bridged.link_planning.wishes import BridgeTap, BridgeWish, Ownership

TIME_ROUNDING_SECONDS = 0.015
"""The kernel keeps times in ticks of up to 10 ms."""
MADE_SETTINGS = BridgeSettings(stp=False, multicast_snooping=False)
"""Settings of a bridge that we make, where the configuration says nothing.

Snooping is off. With it, a bridge that has heard a querier sends multicast only to ports with a report, and a
site whose querier comes and goes, or whose listeners sleep, loses discovery traffic for minutes. The tunnel's
own switch limits what crosses. An adopted bridge keeps its setting; there, TAPs become multicast router
ports, which has the same effect for them.
"""


def plan(
    observed: HostLinks,
    wish: BridgeWish,
    ownership: Ownership,
    held_back: frozenset[tuple[str, str]] = frozenset(),
) -> list[Action]:
    """Everything that is missing for the wish. Skips ports and TAPs that do not exist yet.

    `held_back`: (action name, link) pairs to skip now, because others undid them too often. A port or TAP is
    held back as a whole.

    Raises:
        ConfigurationError: `not_a_bridge`, `port_taken` or `port_unfit`: the host's links contradict the
            wish, and we do not tear down what others built.
    """
    held_links = {link for _, link in held_back if link != wish.name}
    for name, error in unfit_links(observed, wish).items():
        if name not in held_links:
            raise error
    bridge = observed.link(wish.name)
    if bridge is None and ("create", wish.name) in held_back:
        return []
    actions = [
        action
        for action in _bridge_changes(observed, wish, ownership)
        if (action.name, action.link) not in held_back
    ]
    for tap in wish.taps:
        if tap.name not in held_links:
            actions += _tap_changes(observed, wish, tap)
    holdings = Holdings(observed, wish, ownership, held_back)
    actions += holdings.missing_addresses()
    for name in wish.ports:
        port = observed.link(name)
        if port is not None and name not in held_links:
            actions += holdings.port_changes(port)
    actions += holdings.missing_routes()
    return actions


def unfit_links(observed: HostLinks, wish: BridgeWish) -> dict[str, ConfigurationError]:
    """Existing links that cannot do what the wish asks of them, with the reason; see `plan`."""
    found: dict[str, ConfigurationError] = {}
    bridge = observed.link(wish.name)
    if bridge is not None and bridge.bridge is None:
        found[wish.name] = ConfigurationError(
            f"the host has a link {wish.name} that is not a bridge ({bridge.kind or 'a device'}); "
            "choose another name for the bridge",
            key=f"bridges.{wish.name}",
            code="not_a_bridge",
        )
    for name in (*wish.ports, *(tap.name for tap in wish.taps)):
        link = observed.link(name)
        if link is None:
            continue
        key = f"bridges.{wish.name}.ports"
        if link.master not in (None, wish.name):
            found[name] = ConfigurationError(
                f"{name} belongs to {link.master}; take it out (ip link set {name} nomaster), or use "
                f"{link.master} instead",
                key=key,
                code="port_taken",
            )
        elif link.loopback or not link.ethernet or link.bridge is not None:
            found[name] = ConfigurationError(
                f"{name} cannot be a port: it is {_unfit(link)}; name an Ethernet interface",
                key=key,
                code="port_unfit",
            )
    return found


def _unfit(link: Link) -> str:
    if link.loopback:
        return "the loopback interface"
    return "a bridge itself" if link.bridge is not None else "not an Ethernet interface"


def chosen_mac(observed: HostLinks, wish: BridgeWish, ownership: Ownership) -> MacAddress | None:
    """The address of a bridge that we make; see `BridgeWish.mac`."""
    before = ownership.bridge_before
    known = wish.mac or ownership.bridge_mac or (before.mac if before is not None else None)
    if known is not None:
        return known
    for name in wish.ports:
        port = observed.link(name)
        if port and port.mac and not port.mac.is_zero and not port.mac.is_multicast:
            return port.mac
    return wish.fallback_mac


def _wished_settings(base: BridgeSettings, wish: BridgeWish, *, made: bool) -> BridgeSettings:
    silent = MADE_SETTINGS if made else base
    return BridgeSettings(
        stp=silent.stp if wish.stp is None else wish.stp,
        ageing_seconds=_seconds(base.ageing_seconds, wish.ageing_seconds),
        forward_delay_seconds=_seconds(base.forward_delay_seconds, wish.forward_delay_seconds),
        multicast_snooping=(
            silent.multicast_snooping if wish.multicast_snooping is None else wish.multicast_snooping
        ),
        group_forward_mask=(
            base.group_forward_mask if wish.group_forward_mask is None else wish.group_forward_mask
        ),
    )


def _seconds(observed: float, wished: float | None) -> float:
    """The wished value, or the observed one where they differ only by the kernel's rounding."""
    return observed if wished is None or abs(wished - observed) < TIME_ROUNDING_SECONDS else wished


def _created(observed: HostLinks, wish: BridgeWish, ownership: Ownership) -> Link:
    """The bridge as it will be right after we make it. Its MTU follows its ports' until somebody sets it."""
    mac = chosen_mac(observed, wish, ownership)
    if mac is None:
        raise ValueError(f"a bridge without ports needs a fallback MAC address: {wish.name}")
    before = ownership.bridge_before
    base = before.bridge if before is not None and before.bridge is not None else MADE_SETTINGS
    settings = _wished_settings(base, wish, made=before is None)
    return Link(wish.name, 0, "bridge", mac, bridge=settings)


def _bridge_changes(observed: HostLinks, wish: BridgeWish, ownership: Ownership) -> Iterator[Action]:
    """The bridge itself: make it, set it, bring it up."""
    bridge = observed.link(wish.name)
    if bridge is None:
        bridge = _created(observed, wish, ownership)
        assert bridge.mac is not None and bridge.bridge is not None
        yield CreateBridge(wish.name, bridge.mac, bridge.bridge)
    else:
        assert bridge.bridge is not None
        settings = _wished_settings(bridge.bridge, wish, made=ownership.bridge_made)
        if settings != bridge.bridge:
            yield SetSettings(bridge.name, settings, bridge.bridge)
        # Set even where it is right: an address that nobody set changes when a port with a lower one comes.
        mac = wish.mac or (ownership.bridge_mac if ownership.bridge_made else None) or bridge.mac
        if mac is not None and bridge.mac is not None and (mac != bridge.mac or not ownership.mac_fixed):
            yield SetMac(bridge.name, mac, bridge.mac)
    mtu = _bridge_mtu(observed, wish, ownership, bridge)
    if mtu is not None and bridge.mtu != mtu:
        yield SetMtu(wish.name, mtu, bridge.mtu)
    inet6 = _inet6(observed, wish, ownership)
    if inet6 is not None and bridge.inet6 is not None and inet6 != bridge.inet6:
        yield SetInet6(wish.name, inet6, bridge.inet6)
    if not bridge.up:
        yield SetUp(wish.name, up=True, keeps=observed.ipv6_of(wish.name))


def _inet6(observed: HostLinks, wish: BridgeWish, ownership: Ownership) -> Inet6Settings | None:
    """How the bridge should treat advertisements: like the first port whose addresses moved to it.

    None: no change. An adopted bridge is changed only where it got what the kernel had made on a port.
    """
    if not wish.move_addresses:
        return None
    owned = {address.link for address in ownership.handed_over if address.is_kernels}
    owned |= {route.link for route in ownership.routes if route.is_kernels}
    for name in wish.ports:
        port = observed.link(name)
        if port is not None and port.inet6 is not None and (ownership.bridge_made or name in owned):
            return port.inet6
    return None


def _tap_changes(observed: HostLinks, wish: BridgeWish, tap: BridgeTap) -> Iterator[Action]:
    link = observed.link(tap.name)
    if link is None:
        return
    mtu = tap.mtu or wish.mtu or _lan_mtu(observed, wish)
    if mtu is not None and link.mtu != mtu:
        yield SetMtu(tap.name, mtu, link.mtu)
    if tap.queue_frames is not None and link.queue_frames != tap.queue_frames:
        yield SetQueue(tap.name, tap.queue_frames, link.queue_frames)
    if not link.up:
        yield SetUp(tap.name, up=True)
    if link.master is None:
        yield Attach(tap.name, wish.name)
    # A new port has 1, "as learned". A kernel without snooping reports no value.
    router = 1 if link.master is None else link.multicast_router
    if router is not None and router != MULTICAST_ROUTER_ALWAYS:
        yield SetMulticastRouter(tap.name, MULTICAST_ROUTER_ALWAYS, router)
    # A new port has the bridge's default VLANs; the next look shows them.
    vlans = wish.vlans if wish.vlans is not None else _lan_vlans(observed, wish)
    if link.vlans is not None and vlans is not None and link.vlans != vlans:
        yield SetVlans(tap.name, vlans, link.vlans)


def _lan_vlans(observed: HostLinks, wish: BridgeWish) -> tuple[VlanRange, ...] | None:
    """VLANs of the LAN ports of a VLAN-aware bridge, the wished ports' first; None: not VLAN-aware."""
    lan = {link.name: link.vlans for link in _lan_links(observed, wish) if link.vlans is not None}
    order = [*(name for name in wish.ports if name in lan), *(name for name in lan if name not in wish.ports)]
    return joined(vlans for name in order if (vlans := lan[name]) is not None) if lan else None


def _lan_links(observed: HostLinks, wish: BridgeWish) -> list[Link]:
    """LAN ports: wished, or attached by others."""
    taps = {tap.name for tap in wish.taps}
    return [
        link
        for link in observed.links
        if link.name not in taps and (link.name in wish.ports or link.master == wish.name)
    ]


def _lan_mtu(observed: HostLinks, wish: BridgeWish) -> int | None:
    """The smallest MTU of the LAN ports: what the bridge would have without TAPs."""
    return min((link.mtu for link in _lan_links(observed, wish)), default=None)


def _bridge_mtu(observed: HostLinks, wish: BridgeWish, ownership: Ownership, bridge: Link) -> int | None:
    """What the bridge's MTU should be; None: no change.

    The kernel lowers it to the smallest MTU of all ports, TAPs included. That would also limit traffic
    between the LAN and this host. Keep it as it was, or as the LAN ports have it.
    """
    lan = _lan_mtu(observed, wish)
    if wish.mtu is not None or lan is None:
        return wish.mtu
    before = ownership.bridge_before
    if before is None:
        return lan
    return min(before.mtu, lan) if bridge.mtu < before.mtu else None
