"""A port's addresses and routes go to the bridge, and come back exactly as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bridged.addresses import MacAddress
from bridged.errors import NetlinkError
from bridged.link_planning.wishes import BridgeTap, BridgeWish
from bridged.netlink import BridgeAttachment
from tests.lab.bounds import at_most
from tests.lab.host_links import (
    addresses,
    assert_same_host,
    cable,
    ip,
    link,
    members,
    photograph,
    shell,
    show,
    tap,
    within,
)
from tests.lab.namespace import Namespace, in_namespace

pytestmark = pytest.mark.root

WISH = BridgeWish(
    "br0",
    ports=("eth1", "eth2"),
    taps=(BridgeTap("tap0"),),
    fallback_mac=MacAddress.parse("02:00:5e:00:00:07"),
)


def dressed_host() -> None:
    """Two ports with all sorts of addresses and routes, and a WAN that must not change."""
    for name in ("eth1", "eth2", "wan0"):
        cable(name)
    tap("tap0")
    ip(
        "addr add 198.51.100.2/24 dev wan0",
        "addr add 192.0.2.2/24 broadcast 192.0.2.255 dev eth1 label eth1:main",
        "addr add 192.0.2.3/24 dev eth1",
        "addr add 192.0.2.4/24 dev eth1",
        "addr add 203.0.113.2/32 peer 203.0.113.1/32 dev eth1",
        "addr add 10.9.0.5/16 dev eth2 metric 700 noprefixroute",
        "addr add 2001:db8:1::2/64 dev eth1",
        "addr add 2001:db8:1::3/64 dev eth1 valid_lft 5000 preferred_lft 4000",
        "addr add 2001:db8:2::2/64 dev eth2 metric 333",
        "route add default via 192.0.2.1 dev eth1 metric 50 mtu 1400 advmss 1300",
        "route add default via 198.51.100.1 dev wan0 metric 900",
        "route add 10.0.0.0/8 via 192.0.2.9 dev eth1 src 192.0.2.3 proto static",
        "route add 10.20.0.0/16 via 192.0.2.9 dev eth1 table 77",
        "route add 10.30.0.0/16 nexthop via 192.0.2.1 dev eth1 weight 2 nexthop via 198.51.100.1 dev wan0",
        "route add 10.40.0.0/16 via inet6 fe80::1 dev eth1",
        "route add 172.20.0.0/16 dev eth2 scope link",
        "route add ::/0 via fe80::1 dev eth1 metric 100 pref high",
        "route add ::/0 via 2001:db8:2::1 dev eth2 metric 200 expires 4000",
        "route add 2001:db8:f::/48 via 2001:db8:1::9 dev eth1 metric 5 mtu 1300",
    )


@in_namespace
async def test_addresses_and_routes_move_to_the_bridge_and_come_back_exactly_as_they_were() -> None:
    dressed_host()
    before = photograph()
    attachment = BridgeAttachment(WISH)
    await attachment.start()
    try:
        during = photograph()
        moved = {"192.0.2.2", "192.0.2.3", "192.0.2.4", "203.0.113.2", "10.9.0.5"}
        moved |= {"2001:db8:1::2", "2001:db8:1::3", "2001:db8:2::2"}
        assert addresses("br0") == moved
        assert addresses("eth1") == addresses("eth2") == set()
        assert addresses("wan0") == {"198.51.100.2"}
        assert [route for route in during["routes"] if route.get("dev") in ("eth1", "eth2")] == []
        assert len(during["routes"]) == len(before["routes"])
        # The same routes with the same attributes: only the link differs.
        as_before = str(before["routes"]).replace("eth1", "br0").replace("eth2", "br0")
        assert sorted(as_before) == sorted(str(during["routes"]))
        order = [found["local"] for found in during["links"]["br0"]["addr_info"] if found["family"] == "inet"]
        assert order == ["192.0.2.2", "203.0.113.2", "10.9.0.5", "192.0.2.3", "192.0.2.4"]
        dynamic = next(
            found
            for entry in show("addr show dev br0")
            for found in entry.get("addr_info", ())
            if found.get("local") == "2001:db8:1::3"
        )
        assert 4990 < dynamic["valid_life_time"] <= 5000 and 3990 < dynamic["preferred_life_time"] <= 4000
    finally:
        await attachment.stop()
    assert_same_host(photograph(), before)


@in_namespace
async def test_an_unconfirmed_start_is_rolled_back_to_what_was_there_before() -> None:
    dressed_host()
    ip("link add br0 type bridge", "addr add 192.0.2.77/24 dev br0", "link set br0 up")
    before = photograph()
    attachment = BridgeAttachment(replace(WISH, mtu=1400, addresses=("172.31.0.1/24",), stp=True))
    await attachment.start()
    assert members("br0") == {"eth1", "eth2", "tap0"} and "172.31.0.1" in addresses("br0")
    # What happens until the deadline must not hinder the way back.
    ip("link set br0 down", "link set br0 up", "link set eth2 nomaster")
    await within(lambda: "2001:db8:1::2" in addresses("br0") and "eth2" in members("br0"), "repaired")
    await attachment.stop()
    assert_same_host(photograph(), before)


@in_namespace
async def test_a_failure_half_way_takes_everything_back() -> None:
    dressed_host()
    # A TAP's largest MTU is below a veth's: eth3 refuses after eth1 and eth2 have handed over.
    ip("tuntap add eth3 mode tap", "link set eth3 up")
    before = photograph()
    attachment = BridgeAttachment(replace(WISH, ports=("eth1", "eth2", "eth3"), taps=(), mtu=65535))
    with pytest.raises(NetlinkError) as refusal:
        await attachment.start()
    assert refusal.value.link == "eth3" and refusal.value.operation == "set MTU 65535"
    assert refusal.value.code == "einval"
    assert not getattr(refusal.value, "__notes__", [])
    assert_same_host(photograph(), before)


@in_namespace
async def test_addresses_that_a_port_gets_later_move_too() -> None:
    cable("eth1")
    attachment = BridgeAttachment(replace(WISH, ports=("eth1",), taps=()))
    await attachment.start()
    try:
        ip("addr add 192.0.2.2/24 dev eth1", "route add default via 192.0.2.1 dev eth1")
        await within(lambda: addresses("br0") == {"192.0.2.2"} and not addresses("eth1"), "moved")
        await within(lambda: "default via 192.0.2.1 dev br0" in shell("ip route"), "the route moved")
        # The DHCP client still works on the port, and renews there.
        ip("addr add 192.0.2.2/24 dev eth1 valid_lft 3000 preferred_lft 2000")
        await within(lambda: not addresses("eth1"), "moved again")
        lifetime = next(found["valid_life_time"] for found in show("addr show dev br0")[0]["addr_info"])
        assert 2900 < lifetime <= 3000
    finally:
        await attachment.stop()
    assert addresses("eth1") == {"192.0.2.2"}
    assert "default via 192.0.2.1 dev eth1" in shell("ip route")


@in_namespace
async def test_addresses_stay_on_the_port_where_they_shall_not_move() -> None:
    cable("eth1")
    ip("addr add 192.0.2.2/24 dev eth1")
    attachment = BridgeAttachment(replace(WISH, ports=("eth1",), taps=(), move_addresses=False))
    await attachment.start()
    try:
        assert addresses("eth1") == {"192.0.2.2"} and members("br0") == {"eth1"}
    finally:
        await attachment.stop()
    assert addresses("eth1") == {"192.0.2.2"}


@in_namespace
async def test_an_address_whose_lifetime_ends_is_not_brought_back() -> None:
    cable("eth1")
    ip("addr add 192.0.2.2/24 dev eth1 valid_lft 2 preferred_lft 1")
    attachment = BridgeAttachment(replace(WISH, ports=("eth1",), taps=()))
    await attachment.start()
    try:
        assert addresses("br0") == {"192.0.2.2"}
        await within(lambda: not addresses("br0"), "expired", seconds=5)
        ip("link set eth1 alias look")
        await asyncio.sleep(0.3)
        assert addresses("br0") == set()
    finally:
        await attachment.stop()
    assert addresses("eth1") == set()


@contextmanager
def neighbour(port: str) -> Iterator[Namespace]:
    """A host at the other end of the port's cable, in a namespace of its own."""
    with TemporaryDirectory() as folder:
        far = Namespace("netlink", "neighbour", Path(folder))
        try:
            ip(f"link set {port}-x netns {far.name}")
            far.sysctl(f"net.ipv6.conf.{port}-x.accept_dad", 0)
            far.ip("link", "set", f"{port}-x", "up")
            far.ip("addr", "add", "192.0.2.9/24", "dev", f"{port}-x")
            far.ip("addr", "add", "2001:db8:1::9/64", "dev", f"{port}-x", "nodad")
            yield far
        finally:
            far.close()


@pytest.mark.measures
@pytest.mark.parametrize("target", ["192.0.2.2", "2001:db8:1::2"])
@in_namespace
async def test_a_neighbour_hardly_notices_that_the_address_moves(target: str) -> None:
    cable("eth1")
    ip("addr add 192.0.2.2/24 dev eth1", "addr add 2001:db8:1::2/64 dev eth1")
    with neighbour("eth1") as far:
        ping = far.start("ping", "-i", "0.02", "-c", "100", "-W", "1", target)
        await asyncio.sleep(0.5)
        attachment = BridgeAttachment(replace(WISH, ports=("eth1",), taps=()))
        await attachment.start()
        assert addresses("eth1") == set()
        await asyncio.sleep(0.5)
        await attachment.stop()
        assert link("br0") is None
        output, _ = await asyncio.to_thread(ping.communicate)
        received = int(output.split(" received")[0].rsplit(" ", 1)[1])
        at_most(100 - received, 5, "the address moved twice", "pings")


@pytest.mark.parametrize("target", ["192.0.2.2", "2001:db8:1::2"])
@in_namespace
async def test_neighbours_are_told_the_new_mac_address_at_once_and_the_old_one_in_the_end(
    target: str,
) -> None:
    cable("eth1", mac="02:00:00:00:00:11")
    ip(
        "addr add 192.0.2.2/24 dev eth1",
        "addr add 2001:db8:1::2/64 dev eth1",
        "link add br0 address 02:00:00:00:00:22 type bridge",
    )
    with neighbour("eth1") as far:

        def known() -> str:
            return far.ip("neigh", "show", target)

        far.run("ping", "-c", "1", "-W", "2", target)
        assert "02:00:00:00:00:11" in known()
        # A neighbour does not believe two changes within a second.
        await asyncio.sleep(1.1)
        attachment = BridgeAttachment(replace(WISH, ports=("eth1",), taps=()))
        await attachment.start()
        # The second announcement at the latest.
        await within(lambda: "02:00:00:00:00:22" in known(), "the bridge's address is known", 4.0)
        await asyncio.sleep(1.1)
        await attachment.stop()
        await within(lambda: "02:00:00:00:00:11" in known(), "the port's address is known")


@in_namespace
async def test_an_address_that_has_moved_is_announced_twice() -> None:
    """The second time for neighbours that were told something else a moment before the first."""
    cable("eth1", mac="02:00:00:00:00:11")
    ip("addr add 192.0.2.2/24 dev eth1")
    with neighbour("eth1") as far:
        gratuitous = "arp src host 192.0.2.2 and arp dst host 192.0.2.2"
        listening = far.popen("tcpdump", "-i", "eth1-x", "-n", "-l", "--immediate-mode", gratuitous)

        def heard() -> int:
            return sum("192.0.2.2" in line for line in listening.output().splitlines())

        await asyncio.to_thread(listening.wait_for_output, "listening on")
        attachment = BridgeAttachment(replace(WISH, ports=("eth1",), taps=()))
        await attachment.start()
        await within(lambda: heard() >= 2, "two announcements")
        await asyncio.sleep(1.5)
        assert heard() == 2
        await attachment.stop()
        await within(lambda: heard() >= 3, "one more, when the port has it back")
        await asyncio.sleep(0.3)
        assert heard() == 3, listening.output()


@in_namespace
async def test_a_start_that_is_cancelled_leaves_nothing_behind() -> None:
    dressed_host()
    before = photograph()
    for delay in (0.0, 0.001, 0.003, 0.006, 0.012):
        attachment = BridgeAttachment(WISH)
        starting = asyncio.create_task(attachment.start())
        await asyncio.sleep(delay)
        starting.cancel()
        await asyncio.wait({starting})
        await attachment.stop()
        assert_same_host(photograph(), before)
