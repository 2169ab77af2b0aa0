"""The plan of a bridge against a model of the kernel's links: it gets there, stays there, and finds back.

The model keeps the kernel's unpleasant rules: going down costs routes and IPv6 addresses; an address that
goes takes the other IPv4 addresses of its network, and the routes that need it, along.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bridged.addresses import MacAddress
from bridged.link_planning.actions import (
    Action,
    AddAddress,
    AddRoute,
    Attach,
    CreateBridge,
    DeleteAddress,
    DeleteBridge,
    DeleteRoute,
    Detach,
    RenewAddress,
    SetMac,
    SetMtu,
    SetMulticastRouter,
    SetQueue,
    SetSettings,
    SetUp,
    inverse,
)
from bridged.link_planning.links import BridgeSettings, HostAddress, HostLinks, HostRoute, Link
from bridged.link_planning.plan import plan
from bridged.link_planning.undoing import claim, plan_undo, recognise
from bridged.link_planning.wishes import BridgeTap, BridgeWish, Ownership

PORTS = ("eth1", "eth2")
TAP = "tap0"
BRIDGE = "br0"


class Kernel:
    """The model. Refuses (AssertionError) what the kernel would refuse."""

    def __init__(self, host: HostLinks) -> None:
        self.links = {link.name: link for link in host.links}
        self.addresses = list(host.addresses)
        self.routes = list(host.routes)
        self.next_index = 100

    def host(self) -> HostLinks:
        return HostLinks(tuple(self.links.values()), tuple(self.addresses), tuple(self.routes), now=10.0)

    def change(self, name: str, **fields: Any) -> None:
        self.links[name] = replace(self.links[name], **fields)

    def perform(self, action: Action) -> None:
        match action:
            case CreateBridge(name, mac, bridge):
                assert name not in self.links
                self.links[name] = Link(name, self.next_index, "bridge", mac, bridge=bridge)
                self.next_index += 1
            case DeleteBridge(name):
                del self.links[name]
                self.forget(name)
                for port in [link.name for link in self.links.values() if link.master == name]:
                    self.change(port, master=None, multicast_router=None)
            case SetSettings(name, wished, was):
                assert self.links[name].bridge == was
                self.change(name, bridge=wished)
            case SetMac(name, mac, was):
                assert self.links[name].mac == was
                self.change(name, mac=mac)
            case SetMtu(name, mtu, was):
                assert self.links[name].mtu == was
                self.change(name, mtu=mtu)
            case SetQueue(name, frames, was):
                assert self.links[name].queue_frames == was
                self.change(name, queue_frames=frames)
            case SetUp(name, up, keeps):
                self.set_up(name, up, keeps)
            case Attach(name, bridge_name):
                assert self.links[name].master is None and self.links[bridge_name].bridge is not None
                self.change(name, master=bridge_name, multicast_router=1)
            case Detach(name, bridge_name):
                assert self.links[name].master == bridge_name
                self.change(name, master=None, multicast_router=None)
            case SetMulticastRouter(name, value, was):
                assert self.links[name].multicast_router == was
                self.change(name, multicast_router=value)
            case _:
                self.perform_on_layer_3(action)

    def perform_on_layer_3(self, action: Action) -> None:
        match action:
            case AddAddress(address):
                self.add_address(address)
            case RenewAddress(address, was):
                self.addresses[self.addresses.index(was)] = address
            case DeleteAddress(address):
                self.delete_address(address)
            case AddRoute(route):
                assert self.links[route.link].up and self.reaches(route)
                assert route.key not in {other.key for other in self.routes}
                self.routes.append(route)
            case DeleteRoute(route):
                self.routes.remove(route)
            case _:
                raise AssertionError(action)

    def set_up(self, name: str, up: bool, keeps: tuple[HostAddress, ...]) -> None:
        self.change(name, up=up)
        if not up:
            self.routes = [route for route in self.routes if route.link != name]
            self.addresses = [held for held in self.addresses if held.link != name or not held.is_ipv6]
            for address in keeps:
                self.add_address(address)

    def add_address(self, address: HostAddress) -> None:
        assert address.link in self.links
        mine = [held for held in self.addresses if held.link == address.link]
        assert address.key not in {held.key for held in mine}
        elders = [held for held in mine if held.is_ipv6]
        if address.is_ipv6 and elders:
            self.addresses.insert(self.addresses.index(elders[0]), address)
        else:
            self.addresses.append(address)

    def delete_address(self, address: HostAddress) -> None:
        place = self.addresses.index(address)
        self.addresses.remove(address)
        network = ipaddress.ip_interface(address.address).network
        same = [
            held
            for held in self.addresses
            if held.link == address.link and ipaddress.ip_interface(held.address).network == network
        ]
        if same and not address.is_ipv6:
            # Removing the first of a network would remove the others; plans never do.
            assert self.addresses.index(same[0]) < place
        if not any(held.ip == address.ip for held in self.addresses):
            self.routes = [route for route in self.routes if route.preferred_source != address.ip]
        if not address.is_ipv6 and not any(
            held.link == address.link and not held.is_ipv6 for held in self.addresses
        ):
            self.routes = [
                route for route in self.routes if route.link != address.link or ":" in route.destination
            ]

    def run(self, actions: list[Action]) -> None:
        for action in actions:
            self.perform(action)

    def reaches(self, route: HostRoute) -> bool:
        if route.gateway is None or route.gateway.startswith("fe80"):
            return True
        gateway = ipaddress.ip_address(route.gateway)
        return any(
            held.link == route.link and gateway in ipaddress.ip_interface(held.address).network
            for held in self.addresses
        )

    def forget(self, name: str) -> None:
        self.addresses = [held for held in self.addresses if held.link != name]
        self.routes = [route for route in self.routes if route.link != name]


def comparable(host: HostLinks) -> tuple[object, ...]:
    """All that must be equal: not the bridge's index, nor how IPv4 and IPv6 addresses mix."""
    links = {link.name: replace(link, index=0) if link.name == BRIDGE else link for link in host.links}
    held = {
        name: tuple(
            [address for address in host.addresses if address.link == name and address.is_ipv6 == six]
            for six in (False, True)
        )
        for name in links
    }
    return (sorted(links.items(), key=lambda item: item[0]), held, sorted(map(repr, host.routes)))


MACS = st.integers(0, 0xFFFFFF).map(lambda n: MacAddress(b"\x02\x00\x00" + n.to_bytes(3, "big")))
SETTINGS = st.builds(
    BridgeSettings,
    stp=st.booleans(),
    ageing_seconds=st.sampled_from((0.0, 60.0, 300.0)),
    forward_delay_seconds=st.sampled_from((2.0, 15.0)),
    multicast_snooping=st.booleans(),
    group_forward_mask=st.sampled_from((0, 0x4000)),
)
NETWORKS = (1, 2)
LIFETIMES = st.one_of(st.none(), st.integers(100, 10_000).map(float))


@st.composite
def addresses_of(draw: st.DrawFn, link: str, number: int) -> list[HostAddress]:
    """Different addresses of one link, some of them in the same network."""
    hosts = draw(
        st.lists(
            st.tuples(st.booleans(), st.sampled_from(NETWORKS), st.integers(1, 4)), unique=True, max_size=5
        )
    )
    found = []
    for six, network, host in hosts:
        text = f"2001:db8:{number}{network}::{host}/64" if six else f"10.{number}.{network}.{host}/24"
        until = draw(LIFETIMES)
        found.append(
            HostAddress(link, text, label=None if six else link, valid_until=until, preferred_until=until)
        )
    return found


@st.composite
def hosts(draw: st.DrawFn) -> HostLinks:
    """A host with some of the ports, the TAP and the bridge, addresses and routes on them."""
    links: list[Link] = [Link("wan0", 1, "veth", draw(MACS), up=True)]
    adopted = draw(st.booleans())
    if adopted:
        links.append(
            Link(
                BRIDGE,
                2,
                "bridge",
                draw(MACS),
                draw(st.sampled_from((1400, 1500))),
                draw(st.booleans()),
                bridge=draw(SETTINGS),
            )
        )
    for index, name in enumerate((*PORTS, TAP), start=3):
        if not draw(st.booleans()):
            continue
        member = adopted and draw(st.booleans())
        links.append(
            Link(
                name,
                index,
                "tun" if name == TAP else "veth",
                draw(MACS),
                mtu=draw(st.sampled_from((1400, 1500, 9000))),
                up=draw(st.booleans()),
                master=BRIDGE if member else None,
                queue_frames=draw(st.sampled_from((500, 1000))),
                multicast_router=draw(st.sampled_from((0, 1, 2))) if member else None,
            )
        )
    addresses = [
        address
        for number, link in enumerate(links)
        if link.name != TAP
        for address in draw(addresses_of(link.name, number))
    ]
    model = Kernel(HostLinks(tuple(links)))
    for address in addresses:
        model.add_address(address)
    for link in links:
        for address in [held for held in addresses if held.link == link.name and link.up]:
            if draw(st.booleans()):
                model.routes.append(draw(routes_with(address)))
    keys = [route.key for route in model.routes]
    assume(len(keys) == len(set(keys)))
    return model.host()


@st.composite
def routes_with(draw: st.DrawFn, address: HostAddress) -> HostRoute:
    """A route that needs the address: its gateway is in its network, it may be the preferred source."""
    interface = ipaddress.ip_interface(address.address)
    six = address.is_ipv6
    return HostRoute(
        family=10 if six else 2,
        destination=draw(
            st.sampled_from(("::/0", "2001:db8:ffff::/48") if six else ("0.0.0.0/0", "172.16.0.0/12"))
        ),
        link=address.link,
        gateway=draw(st.sampled_from((str(interface.network[9]), "fe80::9" if six else None))),
        metric=draw(st.integers(0, 3)),
        preferred_source=draw(st.sampled_from((None, address.ip))),
        metrics=draw(st.sampled_from(((), (("RTAX_MTU", 1400),)))),
    )


WISHES = st.builds(
    BridgeWish,
    name=st.just(BRIDGE),
    ports=st.sampled_from(((), ("eth1",), PORTS)),
    taps=st.sampled_from(((), (BridgeTap(TAP),), (BridgeTap(TAP, mtu=1300, queue_frames=4096),))),
    addresses=st.sampled_from(((), ("203.0.113.1/24",), ("203.0.113.1/24", "2001:db8:cafe::1/64"))),
    mtu=st.sampled_from((None, 1400, 1500)),
    mac=st.one_of(st.none(), MACS),
    fallback_mac=MACS,
    stp=st.sampled_from((None, True, False)),
    ageing_seconds=st.sampled_from((None, 60.0)),
    forward_delay_seconds=st.sampled_from((None, 4.0)),
    multicast_snooping=st.sampled_from((None, True)),
    group_forward_mask=st.sampled_from((None, 0x4000)),
    move_addresses=st.booleans(),
)  # fmt: skip

thorough = settings(
    max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def settle(kernel: Kernel, wish: BridgeWish, ownership: Ownership) -> Ownership:
    """Look, plan, do, until nothing is left; in two looks at most."""
    for _ in range(2):
        observed = kernel.host()
        ownership = recognise(ownership, observed, BRIDGE)
        actions = plan(observed, wish, ownership)
        kernel.run(actions)
        ownership = claim(ownership, observed, actions, BRIDGE)
    observed = kernel.host()
    ownership = recognise(ownership, observed, BRIDGE)
    assert plan(observed, wish, ownership) == []
    return ownership


@thorough
@given(hosts(), WISHES)
def test_a_second_plan_is_empty(host: HostLinks, wish: BridgeWish) -> None:
    kernel = Kernel(host)
    ownership = recognise(Ownership(), host, BRIDGE)
    actions = plan(host, wish, ownership)
    kernel.run(actions)
    ownership = claim(ownership, host, actions, BRIDGE)
    after = kernel.host()
    assert plan(after, wish, recognise(ownership, after, BRIDGE)) == []
    bridge = after.link(BRIDGE)
    assert bridge is not None and bridge.up
    if wish.mtu is None and (was := host.link(BRIDGE)) is not None:
        assert bridge.mtu == was.mtu, "an adopted bridge keeps its MTU"
    if wish.mtu is None:
        changed = {link.name for link in host.links if after.link(link.name).mtu != link.mtu}
        assert changed <= {TAP}, "a LAN port keeps its MTU"
    present = {link.name for link in after.links}
    wished = {*wish.ports, *(tap.name for tap in wish.taps)} & present
    assert wished <= {link.name for link in after.links if link.master == BRIDGE}
    assert {*wish.addresses} <= {address.address for address in after.addresses_of(BRIDGE)}


@thorough
@given(hosts(), WISHES, st.data())
def test_a_plan_that_fails_anywhere_is_taken_back_by_its_inverse(
    host: HostLinks, wish: BridgeWish, data: st.DataObject
) -> None:
    kernel = Kernel(host)
    actions = plan(host, wish, recognise(Ownership(), host, BRIDGE))
    done = actions[: data.draw(st.one_of(st.just(len(actions)), st.integers(0, len(actions))))]
    kernel.run(done)
    kernel.run(inverse(done))
    assert comparable(kernel.host()) == comparable(host)


@thorough
@given(hosts(), WISHES)
def test_the_way_back_ends_where_the_way_began(host: HostLinks, wish: BridgeWish) -> None:
    kernel = Kernel(host)
    ownership = settle(kernel, wish, Ownership())
    kernel.run(plan_undo(kernel.host(), ownership, BRIDGE))
    assert comparable(kernel.host()) == comparable(host)
    assert plan_undo(kernel.host(), ownership, BRIDGE) == []


@thorough
@given(hosts(), WISHES)
def test_at_no_moment_is_the_host_without_one_of_its_addresses_or_destinations(
    host: HostLinks, wish: BridgeWish
) -> None:
    kernel = Kernel(host)
    ips = {address.ip for address in host.addresses}
    destinations = {(route.destination, route.metric) for route in host.routes}
    ownership = recognise(Ownership(), host, BRIDGE)
    forward = plan(host, wish, ownership)
    ownership = claim(ownership, host, forward, BRIDGE)
    going_down = {link.name for link in host.links if not link.up}
    for actions in (forward, None):
        if actions is None:
            actions = plan_undo(kernel.host(), recognise(ownership, kernel.host(), BRIDGE), BRIDGE)
        for action in actions:
            kernel.run([action])
            assert ips <= {address.ip for address in kernel.addresses}
            assert destinations <= {(route.destination, route.metric) for route in kernel.routes}
    assert going_down == {link.name for link in kernel.host().links if not link.up}


@thorough
@given(hosts(), WISHES, st.data())
def test_whatever_vanishes_and_returns_the_end_is_the_same(
    host: HostLinks, wish: BridgeWish, data: st.DataObject
) -> None:
    undisturbed = Kernel(host)
    settle(undisturbed, wish, Ownership())
    kernel = Kernel(host)
    ownership = settle(kernel, wish, Ownership())
    for name in data.draw(st.lists(st.sampled_from((*PORTS, TAP, BRIDGE)), max_size=4)):
        link = kernel.links.get(name)
        if link is None or (name == BRIDGE and not ownership.bridge_made):
            continue
        if name == BRIDGE:
            kernel.run([DeleteBridge(name, MacAddress(bytes(6)), BridgeSettings())])
        else:
            kernel.forget(name)
            del kernel.links[name]
            ownership = settle(kernel, wish, ownership)
            kernel.next_index += 1
            kernel.links[name] = Link(name, kernel.next_index, link.kind, link.mac)
        ownership = settle(kernel, wish, ownership)
    mine, theirs = kernel.host(), undisturbed.host()
    wished = {*wish.ports, *(tap.name for tap in wish.taps)}
    ports = [{link.name for link in host.links if link.master == BRIDGE} for host in (mine, theirs)]
    assert ports[0] & wished == ports[1] & wished
    assert {address.key for address in mine.addresses_of(BRIDGE)} == (
        {address.key for address in theirs.addresses_of(BRIDGE)}
    )
    bridge, other = mine.link(BRIDGE), theirs.link(BRIDGE)
    assert bridge is not None and other is not None
    assert (bridge.mac, bridge.up, bridge.bridge) == (other.mac, other.up, other.bridge)
