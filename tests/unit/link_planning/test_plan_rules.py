from __future__ import annotations

from dataclasses import replace

import pytest

from bridged.addresses import MacAddress
from bridged.errors import ConfigurationError
from bridged.link_planning.actions import (
    Action,
    AddAddress,
    AddRoute,
    Attach,
    CreateBridge,
    DeleteAddress,
    DeleteRoute,
    SetInet6,
    SetMac,
    SetMtu,
    SetVlans,
)
from bridged.link_planning.links import BridgeSettings, HostAddress, HostLinks, HostRoute, Inet6Settings, Link
from bridged.link_planning.plan import MADE_SETTINGS, plan, unfit_links
from bridged.link_planning.undoing import claim, plan_undo, recognise
from bridged.link_planning.vlans import VlanRange
from bridged.link_planning.wishes import BridgeTap, BridgeWish, Ownership

KEPT = MacAddress.parse("02:00:5e:00:00:07")
FIXED = MacAddress.parse("02:00:5e:00:00:08")
PORT = Link("eth1", 3, "veth", MacAddress.parse("02:ff:00:00:00:01"), up=True)
ADOPTED = Link("br0", 2, "bridge", MacAddress.parse("02:ee:00:00:00:01"), up=True, bridge=BridgeSettings())


def wish(**fields: object) -> BridgeWish:
    return BridgeWish("br0", **{"ports": ("eth1",), "fallback_mac": KEPT, **fields})  # type: ignore[arg-type]


def created(observed: HostLinks, wished: BridgeWish, ownership: Ownership = Ownership()) -> CreateBridge:  # noqa: B008
    first = plan(observed, wished, ownership)[0]
    assert isinstance(first, CreateBridge)
    return first


@pytest.mark.parametrize(
    ("observed", "fields", "expected"),
    [
        (HostLinks((PORT,)), {}, PORT.mac),
        (HostLinks((PORT,)), {"mac": FIXED}, FIXED),
        (HostLinks(), {}, KEPT),
        (HostLinks((Link("eth1", 3, mac=MacAddress(bytes(6))),)), {}, KEPT),
    ],
)
def test_the_mac_address_of_a_made_bridge(
    observed: HostLinks, fields: dict[str, object], expected: MacAddress
) -> None:
    assert created(observed, wish(**fields)).mac == expected


def test_a_bridge_that_is_made_again_has_the_address_it_had() -> None:
    ownership = Ownership(bridge_made=True, bridge_mac=FIXED)
    assert created(HostLinks((PORT,)), wish(), ownership).mac == FIXED


def test_a_made_bridge_has_neither_stp_nor_snooping_unless_wished() -> None:
    settings = created(HostLinks(), wish()).settings
    assert settings == MADE_SETTINGS and not settings.stp and not settings.multicast_snooping
    assert created(HostLinks(), wish(stp=True, multicast_snooping=True)).settings.stp


def test_an_adopted_bridge_only_gets_a_fixed_address_where_the_wish_is_silent() -> None:
    observed = HostLinks((ADOPTED,))
    actions = plan(observed, wish(), recognise(Ownership(), observed, "br0"))
    assert actions == [SetMac("br0", ADOPTED.mac, ADOPTED.mac)]


def test_a_tap_follows_the_lan_ports_mtu_unless_it_has_its_own() -> None:
    links = (ADOPTED, Link("eth1", 3, mtu=9000, up=True, master="br0"), Link("tap0", 4))
    for tap, expected in ((BridgeTap("tap0"), 9000), (BridgeTap("tap0", mtu=1400), 1400)):
        actions = plan(HostLinks(links), wish(taps=(tap,)), Ownership())
        assert SetMtu("tap0", expected, 1500) in actions


@pytest.mark.parametrize("now", [1500, 1400])
def test_an_adopted_bridge_keeps_its_mtu_when_a_tap_with_a_smaller_one_joins(now: int) -> None:
    before = replace(ADOPTED, mtu=9000, up=True)
    port = Link("eth1", 3, mtu=9000, up=True, master="br0")
    tap = Link("tap0", 4, mtu=now, up=True, master="br0", multicast_router=2)
    ownership = replace(recognise(Ownership(), HostLinks((before, port)), "br0"), mac_fixed=True)
    observed = HostLinks((replace(before, mtu=now), port, tap))
    asked = wish(taps=(BridgeTap("tap0", mtu=now),))
    assert plan(observed, asked, ownership) == [SetMtu("br0", 9000, now)]
    assert plan(HostLinks((before, port, tap)), asked, ownership) == []
    assert SetMtu("eth1", now, 9000) not in plan(observed, asked, ownership), "never a LAN port's"


def test_an_adopted_bridge_that_had_a_smaller_mtu_than_its_ports_keeps_that() -> None:
    before = replace(ADOPTED, mtu=1400, up=True)
    ownership = replace(recognise(Ownership(), HostLinks((before,)), "br0"), mac_fixed=True)
    port = Link("eth1", 3, mtu=9000, up=True, master="br0")
    assert plan(HostLinks((before, port)), wish(), ownership) == []
    lowered = HostLinks((replace(before, mtu=1300), port))
    assert plan(lowered, wish(), ownership) == [SetMtu("br0", 1400, 1300)]


def test_a_made_bridge_has_the_lan_ports_mtu_whatever_the_tap_has() -> None:
    observed = HostLinks((replace(PORT, mtu=9000), Link("tap0", 4, mtu=1400)))
    actions = plan(observed, wish(taps=(BridgeTap("tap0", mtu=1400),)), Ownership())
    assert [action for action in actions if isinstance(action, SetMtu)] == [SetMtu("br0", 9000, 1500)]


SLAAC = HostAddress("eth1", "2001:db8:77::5/64", protocol=2, valid_until=500.0)
DEFAULT = HostRoute(10, "::/0", "eth1", "fe80::1", metric=1024, protocol=9, expires_at=400.0)


def test_what_the_kernel_learned_from_advertisements_moves_as_a_copy_that_its_own_replaces() -> None:
    """A route of the same metric would keep it from taking the next advertisement."""
    observed = HostLinks((replace(ADOPTED, mtu=1500), PORT), (SLAAC,), (DEFAULT,), now=10.0)
    ownership = replace(recognise(Ownership(), observed, "br0"), mac_fixed=True)
    actions = plan(observed, wish(), ownership)
    copy = replace(DEFAULT, link="br0", metric=1025)
    assert AddRoute(copy) in actions and DeleteRoute(DEFAULT) in actions
    ownership = claim(ownership, observed, actions, "br0")
    own = replace(DEFAULT, link="br0", expires_at=900.0)
    joined = replace(PORT, master="br0")
    later = HostLinks((ADOPTED, joined), (SLAAC.on("br0"),), (copy, own), now=20.0)
    assert plan(later, wish(), ownership) == [DeleteRoute(copy)]
    ownership = claim(ownership, later, [DeleteRoute(copy)], "br0")
    assert ownership.routes == (DEFAULT,) and ownership.added_routes == ()
    after = replace(later, routes=(own,))
    assert plan(after, wish(), ownership) == []
    returned = [action.route for action in plan_undo(after, ownership, "br0") if isinstance(action, AddRoute)]
    assert returned == [replace(DEFAULT, metric=1025)] and returned[0].expires_at == 900.0


def test_what_the_kernel_takes_away_again_is_neither_kept_nor_given_back() -> None:
    joined = replace(PORT, master="br0")
    ownership = Ownership(
        bridge_made=True, bridge_index=2, mac_fixed=True, handed_over=(SLAAC,), routes=(DEFAULT,)
    )
    observed = HostLinks((replace(ADOPTED, bridge=MADE_SETTINGS), joined), now=10.0)
    assert plan(observed, wish(), ownership) == []
    assert not [action for action in plan_undo(observed, ownership, "br0") if isinstance(action, AddRoute)]


def test_a_bridge_takes_advertisements_as_the_port_did_whose_addresses_it_got() -> None:
    router = Inet6Settings(accept_ra=2, forwarding=1)
    port = replace(PORT, master="br0", inet6=router)
    bridge = replace(ADOPTED, inet6=Inet6Settings())
    made = Ownership(bridge_made=True, bridge_index=2, mac_fixed=True)
    ours = HostLinks((replace(bridge, bridge=MADE_SETTINGS), port))
    assert plan(ours, wish(), made) == [SetInet6("br0", router, Inet6Settings())]
    assert plan(ours, wish(move_addresses=False), made) == []
    adopted = replace(recognise(Ownership(), HostLinks((bridge,)), "br0"), mac_fixed=True)
    assert plan(HostLinks((bridge, port)), wish(), adopted) == [], "it has its own mind"
    taken = replace(adopted, handed_over=(SLAAC,))
    change = SetInet6("br0", router, Inet6Settings())
    assert plan(HostLinks((bridge, port)), wish(), taken) == [change]
    now = HostLinks((replace(bridge, inet6=router), port))
    assert change.inverse() in plan_undo(now, taken, "br0")


AWARE = (VlanRange(1, 1, pvid=True, untagged=True),)


def _aware(*ports: Link, vlans: tuple[VlanRange, ...] | None = None) -> list[Action]:
    """The plan for a TAP that has just joined a VLAN-aware bridge with these ports."""
    tap = Link("tap0", 9, up=True, master="br0", multicast_router=2, vlans=AWARE)
    before = replace(ADOPTED, up=True)
    observed = HostLinks((before, *ports, tap))
    ownership = replace(recognise(Ownership(), observed, "br0"), mac_fixed=True)
    return plan(observed, wish(ports=("eth1",), taps=(BridgeTap("tap0"),), vlans=vlans), ownership)


def _port(name: str, *vlans: VlanRange) -> Link:
    return Link(name, 3 + len(name), up=True, master="br0", vlans=vlans)


def test_a_tap_gets_the_vlans_that_the_lan_port_carries_with_their_flags() -> None:
    lan = (VlanRange(5, 5, pvid=True, untagged=True), VlanRange(20, 29))
    assert _aware(_port("eth1", *lan)) == [SetVlans("tap0", lan, AWARE)]
    assert _aware(_port("eth1", *AWARE)) == [], "nothing to change"


def test_of_several_lan_ports_the_tap_gets_all_vlans_and_those_of_the_first_wished_one_decide() -> None:
    foreign = _port("eth0", VlanRange(7, 7, pvid=True, untagged=True), VlanRange(20, 20))
    wished = _port("eth1", *AWARE, VlanRange(20, 20))
    expected = (*AWARE, VlanRange(7, 7), VlanRange(20, 20))
    assert _aware(foreign, wished) == [SetVlans("tap0", expected, AWARE)]


def test_configured_vlans_come_before_those_of_the_lan_ports() -> None:
    wanted = (VlanRange(100, 199),)
    assert _aware(_port("eth1", VlanRange(20, 20)), vlans=wanted) == [SetVlans("tap0", wanted, AWARE)]


def test_a_bridge_that_is_not_vlan_aware_gets_no_vlans() -> None:
    tap = Link("tap0", 9, up=True, master="br0", multicast_router=2)
    observed = HostLinks((replace(ADOPTED, up=True), tap))
    ownership = replace(recognise(Ownership(), observed, "br0"), mac_fixed=True)
    assert plan(observed, wish(taps=(BridgeTap("tap0"),), vlans=(VlanRange(20, 20),)), ownership) == []


def test_a_tap_that_was_in_the_bridge_before_gets_its_vlans_back() -> None:
    before = Link("tap0", 9, up=True, master="br0", multicast_router=2, vlans=AWARE)
    observed = HostLinks((ADOPTED, before))
    change = SetVlans("tap0", (VlanRange(20, 20),), AWARE)
    ownership = claim(Ownership(), observed, [change], "br0")
    now = HostLinks((ADOPTED, replace(before, vlans=change.value)))
    assert change.inverse() in plan_undo(now, ownership, "br0")


def test_what_is_held_back_is_left_out_and_the_rest_is_done() -> None:
    observed = HostLinks((ADOPTED, PORT, Link("eth2", 4, up=True)))
    actions = plan(observed, wish(ports=("eth1", "eth2")), Ownership(), frozenset({("attach", "eth1")}))
    assert [action.link for action in actions if isinstance(action, Attach)] == ["eth2"]


def test_a_port_keeps_its_addresses_while_the_bridge_may_not_be_given_any() -> None:
    observed = HostLinks((ADOPTED, PORT), (HostAddress("eth1", "192.0.2.1/24"),))
    held = frozenset({("route", "br0")})
    assert not [
        action
        for action in plan(observed, wish(), Ownership(), held)
        if isinstance(action, AddAddress | DeleteAddress)
    ]


def test_a_handed_over_address_is_brought_back_until_its_lifetime_is_over() -> None:
    address = HostAddress("eth1", "192.0.2.1/24", valid_until=100.0)
    ownership = Ownership(handed_over=(address,), mac_fixed=True, bridge_index=2)
    links = (ADOPTED, Link("eth1", 3, up=True, master="br0"))
    assert plan(HostLinks(links, now=99.0), wish(), ownership) == [AddAddress(address.on("br0"))]
    assert plan(HostLinks(links, now=100.0), wish(), ownership) == []


def test_a_link_local_address_stays() -> None:
    address = HostAddress("eth1", "fe80::1/64", scope=253)
    actions = plan(HostLinks((ADOPTED, PORT), (address,)), wish(), Ownership())
    assert not [action for action in actions if isinstance(action, AddAddress | DeleteAddress)]


def test_a_multipath_route_moves_only_by_the_port() -> None:
    from bridged.link_planning.links import NextHop

    route = HostRoute(
        2, "10.0.0.0/8", nexthops=(NextHop("eth1", "192.0.2.9"), NextHop("wan0", "198.51.100.9", 3))
    )
    assert route.moved("eth1", "br0").nexthops == (
        NextHop("br0", "192.0.2.9"),
        NextHop("wan0", "198.51.100.9", 3),
    )


@pytest.mark.parametrize(
    ("link", "code"),
    [
        (Link("eth1", 3, master="bond0"), "port_taken"),
        (Link("eth1", 3, loopback=True), "port_unfit"),
        (Link("eth1", 3, ethernet=False), "port_unfit"),
        (Link("eth1", 3, bridge=BridgeSettings()), "port_unfit"),
        (Link("br0", 3), "not_a_bridge"),
    ],
)
def test_links_that_contradict_the_wish_are_refused(link: Link, code: str) -> None:
    observed = HostLinks((link,))
    assert [error.code for error in unfit_links(observed, wish()).values()] == [code]
    with pytest.raises(ConfigurationError) as refusal:
        plan(observed, wish(), Ownership())
    assert refusal.value.code == code


def test_a_bridge_made_by_others_after_ours_was_deleted_is_adopted() -> None:
    ours = recognise(Ownership(bridge_made=True, bridge_mac=KEPT), HostLinks((ADOPTED,)), "br0")
    assert ours.bridge_made and ours.bridge_index == 2
    other = Link("br0", 9, "bridge", FIXED, bridge=BridgeSettings())
    theirs = recognise(ours, HostLinks((other,)), "br0")
    assert not theirs.bridge_made and theirs.bridge_before == other


def test_the_first_touch_decides_what_a_link_was_like_before() -> None:
    first = Link("eth1", 3, mtu=1500)
    ownership = claim(Ownership(), HostLinks((first,)), [SetMtu("eth1", 1400, 1500)], "br0")
    later = Link("eth1", 3, mtu=1400)
    ownership = claim(ownership, HostLinks((later,)), [Attach("eth1", "br0")], "br0")
    assert ownership.before("eth1") == first
    renewed = Link("eth1", 8, mtu=1300)
    ownership = claim(ownership, HostLinks((renewed,)), [Attach("eth1", "br0")], "br0")
    assert ownership.before("eth1") == renewed
