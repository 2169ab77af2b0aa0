"""What others do to the bridge is repaired, what was adopted is given back, the MAC address is constant."""

from __future__ import annotations

import asyncio
import subprocess
import time
from dataclasses import replace

import pytest

from bridged.addresses import MacAddress
from bridged.errors import ConfigurationError, NetlinkError
from bridged.link_planning.wishes import BridgeTap, BridgeWish
from bridged.netlink import AttachmentEvent, BridgeAttachment, LinkWatch, random_mac
from tests.lab.bounds import at_most
from tests.lab.host_links import (
    addresses,
    assert_same_host,
    cable,
    ip,
    link,
    members,
    photograph,
    plugged,
    shell,
    tap,
    within,
)
from tests.lab.namespace import in_namespace
from tests.lab.waiting import NotInTime

pytestmark = pytest.mark.root

KEPT_MAC = MacAddress.parse("02:00:5e:00:00:07")
WISH = BridgeWish(
    "br0",
    ports=("eth1",),
    taps=(BridgeTap("tap0"),),
    addresses=("192.0.2.1/24",),
    mtu=1400,
    fallback_mac=KEPT_MAC,
)


@pytest.mark.parametrize(
    ("tampering", "action"),
    [
        ("link set eth1 nomaster", "attach"),
        ("link set tap0 nomaster", "attach"),
        ("link set eth1 down", "up"),
        ("link set tap0 down", "up"),
        ("link set br0 down", "up"),
        ("link del br0", "create"),
        ("link set eth1 mtu 1300", "mtu"),
        ("link set br0 mtu 1300", "mtu"),
        ("link set br0 address 02:00:00:00:00:99", "mac"),
        ("link set br0 type bridge stp_state 1 mcast_snooping 1", "settings"),
        ("link set tap0 type bridge_slave mcast_router 1", "multicast_router"),
        ("addr del 192.0.2.1/24 dev br0", "address"),
    ],
)
@in_namespace
async def test_tampering_is_repaired_within_two_seconds_and_counted(tampering: str, action: str) -> None:
    cable("eth1")
    tap("tap0")
    events: list[AttachmentEvent] = []
    attachment = BridgeAttachment(WISH, report=events.append)
    with plugged("tap0"):
        await attachment.start()
        try:
            await within(lambda: all(attachment.status().ports.values()), "all ports have carrier")
            before = photograph()
            ip(tampering)
            await within(lambda: attachment.status().repairs.get(action) == 1, f"{action} repaired")
            assert_same_host(photograph(), before)
            await within(lambda: "bridge_repaired" in {event.name for event in events}, "told")
            assert attachment.status().problem is None
        finally:
            await attachment.stop()


@pytest.mark.measures
@in_namespace
async def test_a_program_that_insists_is_answered_ever_more_seldom() -> None:
    cable("eth1")
    tap("tap0")
    attachment = BridgeAttachment(WISH)
    await attachment.start()
    try:
        ends = time.monotonic() + 3.0
        undone = 0
        while time.monotonic() < ends:
            if "eth1" in members("br0"):
                ip("link set eth1 nomaster")
                undone += 1
            await asyncio.sleep(0.01)
        # A few at once, then after 0.5, 1 and 2 s; undone without end it would be more than a hundred times.
        assert undone <= 8
        if undone < 4:
            raise NotInTime(f"only {undone} repairs in three seconds")
        # The rest is repaired as quickly as ever, and a port that comes back is no fight.
        ip("link set tap0 nomaster")
        await within(lambda: "tap0" in members("br0"), "the other port is repaired")
        ip("link del eth1")
        cable("eth1")
        await within(lambda: "eth1" in members("br0"), "a new link is attached at once")
    finally:
        await attachment.stop()


@in_namespace
async def test_the_bridge_keeps_its_mac_address_whichever_ports_come_and_go() -> None:
    cable("eth1", mac="02:ff:00:00:00:01")
    attachment = BridgeAttachment(replace(WISH, ports=("eth1", "eth2")))
    await attachment.start()
    try:
        seen = [link("br0")["address"]]
        cable("eth2", mac="02:00:00:00:00:02")
        await within(lambda: "eth2" in members("br0"), "a port with a lower address")
        seen.append(link("br0")["address"])
        ip("link del eth1")
        await within(lambda: members("br0") == {"eth2"}, "the port with the bridge's address is gone")
        seen.append(link("br0")["address"])
        ip("link del eth2")
        await within(lambda: members("br0") == set(), "no port is left")
        seen.append(link("br0")["address"])
        ip("link del br0")
        await within(lambda: link("br0") is not None, "the bridge is made again")
        seen.append(link("br0")["address"])
        assert seen == ["02:ff:00:00:00:01"] * 5
        await within(lambda: attachment.status().mac == "02:ff:00:00:00:01", "status says so")
    finally:
        await attachment.stop()


@in_namespace
async def test_a_bridge_made_without_ports_has_the_address_that_the_caller_keeps() -> None:
    attachment = BridgeAttachment(WISH)
    await attachment.start()
    try:
        assert link("br0")["address"] == str(KEPT_MAC)
        cable("eth1", mac="02:00:00:00:00:01")
        await within(lambda: members("br0") == {"eth1"}, "attached")
        assert link("br0")["address"] == str(KEPT_MAC)
    finally:
        await attachment.stop()


@in_namespace
async def test_an_adopted_bridge_keeps_its_mac_address_when_a_lower_one_joins() -> None:
    cable("eth9", mac="02:ff:00:00:00:01")
    ip("link add br0 type bridge", "link set eth9 master br0", "link set br0 up")
    cable("eth1", mac="02:00:00:00:00:01")
    attachment = BridgeAttachment(WISH)
    await attachment.start()
    try:
        assert members("br0") == {"eth1", "eth9"}
        assert link("br0")["address"] == "02:ff:00:00:00:01"
    finally:
        await attachment.stop()
    assert link("br0")["address"] == "02:ff:00:00:00:01" and members("br0") == {"eth9"}


@pytest.mark.parametrize("up", [True, False])
@in_namespace
async def test_an_adopted_bridge_is_exactly_as_it_was_after_the_end(up: bool) -> None:
    for name in ("eth1", "eth8", "eth9"):
        cable(name)
    tap("tap0")
    ip(
        "link add br0 mtu 1450 type bridge stp_state 1 ageing_time 12300 forward_delay 400 mcast_snooping 1",
        "link set eth9 master br0",
        "link set eth8 master br0",
        "addr add 198.51.100.1/24 dev br0",
        "addr add 192.0.2.1/24 dev br0",
        f"link set br0 {'up' if up else 'down'}",
        "addr add 2001:db8:5::1/64 dev br0",
        "addr add 2001:db8:5::2/64 dev br0",
        "link set eth1 down",
        "addr add 172.16.0.1/24 dev eth1",
        "addr add 2001:db8:6::1/64 dev eth1",
    )
    before = photograph()
    changes = replace(
        WISH,
        ports=("eth1", "eth9"),
        addresses=("192.0.2.1/24", "192.0.2.200/24"),
        mac=MacAddress.parse("02:00:00:00:00:77"),
        stp=False,
        ageing_seconds=60,
        forward_delay_seconds=2,
        multicast_snooping=False,
        group_forward_mask=0x4000,
    )
    attachment = BridgeAttachment(changes)
    await attachment.start()
    try:
        assert attachment.status().adopted
        assert members("br0") == {"eth1", "eth8", "eth9", "tap0"}
        bridge = link("br0")
        data = bridge["linkinfo"]["info_data"]
        assert (data["stp_state"], data["ageing_time"], data["forward_delay"]) == (0, 6000, 200)
        assert (data["mcast_snooping"], bridge["address"], bridge["mtu"]) == (0, "02:00:00:00:00:77", 1400)
        assert data["group_fwd_mask"] == "0x4000"
        assert {"172.16.0.1", "192.0.2.200", "2001:db8:6::1", "2001:db8:5::1"} < addresses("br0")
    finally:
        await attachment.stop()
    assert_same_host(photograph(), before)


@in_namespace
async def test_a_second_look_finds_nothing_to_do() -> None:
    cable("eth1")
    tap("tap0")
    ip("addr add 192.0.2.7/24 dev eth1", "route add default via 192.0.2.9 dev eth1")
    wish = replace(WISH, ageing_seconds=15.01, forward_delay_seconds=2.015, stp=True)
    events: list[AttachmentEvent] = []
    attachment = BridgeAttachment(wish, report=events.append)
    await attachment.start()
    try:
        for number in range(5):
            ip(f"link set eth1 alias look{number}")
            await asyncio.sleep(0.1)
        assert [event.name for event in events] == ["bridge_applied"]
        assert not attachment.status().repairs
    finally:
        await attachment.stop()


@pytest.mark.measures
@in_namespace
async def test_lost_events_are_made_up_for_by_a_look_at_everything() -> None:
    cable("eth1")
    tap("tap0")
    ip("link add flood0 type veth peer name flood1")
    watch = LinkWatch(receive_buffer_octets=4096)
    watch.start()
    attachment = BridgeAttachment(WISH, watch=watch)
    await attachment.start()
    try:
        await asyncio.sleep(0.2)
        # The event loop stands still while the kernel fills the socket's buffer; the last event is lost too.
        batch = [f"link set flood0 mtu {1300 + n % 2}" for n in range(300)]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(batch), text=True, check=True, timeout=30)
        subprocess.run(["ip", "link", "set", "eth1", "nomaster"], check=True, timeout=30)
        started = time.monotonic()
        await within(lambda: "eth1" in members("br0"), "attached again")
        assert watch.resyncs > 0
        at_most(time.monotonic() - started, 2.0, "the repair")
    finally:
        await attachment.stop()
        watch.close()


@in_namespace
async def test_links_that_cannot_be_ports_are_refused_before_anything_is_changed() -> None:
    cable("eth1")
    cable("eth2")
    ip("link add other type bridge", "link set eth2 master other", "link add dummybr type bridge")
    ip("tuntap add tun3 mode tun", "link add br7 type veth peer name br7-x")
    before = photograph()
    for ports, code in (
        (("eth1", "eth2"), "port_taken"),
        (("eth1", "lo"), "port_unfit"),
        (("eth1", "dummybr"), "port_unfit"),
        (("eth1", "tun3"), "port_unfit"),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            await BridgeAttachment(replace(WISH, ports=ports)).start()
        assert refusal.value.code == code and ports[1] in refusal.value.reason
    with pytest.raises(ConfigurationError) as refusal:
        await BridgeAttachment(replace(WISH, name="br7")).start()
    assert refusal.value.code == "not_a_bridge"
    assert_same_host(photograph(), before)


@in_namespace
async def test_a_port_that_turns_up_in_another_bridge_is_left_there_and_reported() -> None:
    tap("tap0")
    ip("link add other type bridge")
    attachment = BridgeAttachment(WISH)
    await attachment.start()
    try:
        ip("link add eth1 master other type veth peer name eth1-x")
        await within(lambda: "eth1 belongs to other" in (attachment.status().problem or ""), "reported")
        ip("link set tap0 nomaster")
        await within(lambda: "tap0" in members("br0"), "the others are still looked after")
        assert members("other") == {"eth1"}
        ip("link set eth1 nomaster")
        await within(lambda: "eth1" in members("br0"), "free at last")
        await within(lambda: attachment.status().problem is None, "no problem any more")
    finally:
        await attachment.stop()


@in_namespace
async def test_a_port_that_refuses_is_tried_again_while_the_others_are_served() -> None:
    cable("eth2")
    attachment = BridgeAttachment(replace(WISH, ports=("eth1", "eth2"), taps=(), mtu=65535))
    await attachment.start()
    try:
        # A TAP's largest MTU is too small.
        ip("tuntap add eth1 mode tap")
        await within(lambda: "set MTU 65535 on eth1" in (attachment.status().problem or ""), "reported")
        ip("link set eth2 nomaster")
        await within(lambda: members("br0") == {"eth2"}, "the other one")
        ip("link del eth1")
        cable("eth1")
        await within(lambda: members("br0") == {"eth1", "eth2"}, "the new one is fit")
        await within(lambda: attachment.status().problem is None, "no problem any more")
    finally:
        await attachment.stop()


@in_namespace
async def test_the_way_back_goes_on_when_links_have_vanished() -> None:
    cable("eth1")
    cable("eth2")
    tap("tap0")
    ip("addr add 192.0.2.7/24 dev eth1", "addr add 198.51.100.7/24 dev eth2")
    attachment = BridgeAttachment(replace(WISH, ports=("eth1", "eth2"), addresses=()))
    await attachment.start()
    ip("link del eth1", "link del tap0")
    await attachment.stop()
    assert link("br0") is None
    assert addresses("eth2") == {"198.51.100.7"} and link("eth2")["mtu"] == 1500
    await attachment.stop()


@in_namespace
async def test_a_bridge_that_vanished_before_the_end_costs_no_address() -> None:
    cable("eth1")
    ip("addr add 192.0.2.7/24 dev eth1", "route add default via 192.0.2.9")
    before = photograph()
    attachment = BridgeAttachment(replace(WISH, taps=(), addresses=()))
    await attachment.start()
    ip("link del br0")
    await attachment.stop()
    assert_same_host(photograph(), before)


@in_namespace
async def test_the_kernels_refusal_names_operation_link_and_reason() -> None:
    cable("eth1")
    before = photograph()
    with pytest.raises(NetlinkError) as refusal:
        await BridgeAttachment(replace(WISH, mtu=64)).start()
    assert (refusal.value.operation, refusal.value.link) == ("set MTU 64", "br0")
    assert refusal.value.code == "einval" and "mtu less than device minimum" in str(refusal.value)
    assert_same_host(photograph(), before)


def test_a_random_mac_is_unicast_and_locally_administered() -> None:
    drawn = {random_mac() for _ in range(200)}
    assert len(drawn) == 200
    assert all(mac.octets[0] & 2 and not mac.is_multicast for mac in drawn)


@in_namespace
async def test_sysctls_of_br_netfilter_are_told() -> None:
    from bridged.netlink import bridge_netfilter

    shell("sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0")
    shell("sysctl -qw net.bridge.bridge-nf-call-arptables=0")
    assert bridge_netfilter() == frozenset()
    shell("sysctl -qw net.bridge.bridge-nf-call-ip6tables=1")
    assert bridge_netfilter() == {"ip6tables"}


@in_namespace
async def test_a_jumbo_bridge_keeps_its_mtu_when_a_tap_with_a_smaller_one_joins() -> None:
    """The kernel lowers it with the TAP's; neither that nor a LAN port's MTU may change."""
    cable("eth1")
    ip("link set eth1 mtu 9000", "link add br0 type bridge", "link set eth1 master br0", "link set br0 up")
    tap("tap0")
    attachment = BridgeAttachment(BridgeWish("br0", ports=("eth1",), taps=(BridgeTap("tap0", mtu=1400),)))
    await attachment.start()
    try:
        assert members("br0") == {"eth1", "tap0"}
        mtus = [found["mtu"] for name in ("br0", "eth1", "tap0") if (found := link(name))]
        assert mtus == [9000, 9000, 1400]
    finally:
        await attachment.stop()
    mtus = [found["mtu"] for name in ("br0", "eth1") if (found := link(name))]
    assert mtus == [9000, 9000]
