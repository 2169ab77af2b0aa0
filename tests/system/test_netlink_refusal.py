"""The interface that carries the tunnel itself is refused as a port, whenever it would join."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridged.addresses import MacAddress
from bridged.errors import ConfigurationError
from bridged.link_planning.wishes import BridgeWish
from bridged.netlink import BridgeAttachment, check_ports
from tests.lab.host_links import assert_same_host, cable, ip, members, photograph, within
from tests.lab.namespace import in_namespace

pytestmark = pytest.mark.root

WISH = BridgeWish("br0", ports=("lan0", "wan0"), fallback_mac=MacAddress.parse("02:00:5e:00:00:07"))
REMOTE = "203.0.113.50"


def two_sided_host() -> None:
    cable("lan0")
    cable("wan0")
    ip(
        "addr add 192.0.2.2/24 dev lan0",
        "addr add 198.51.100.2/24 dev wan0",
        "addr add 2001:db8:9::2/64 dev wan0",
        "route add default via 198.51.100.1",
        "route add ::/0 via 2001:db8:9::1",
        "route add 10.0.0.0/8 via 192.0.2.1",
    )


@pytest.mark.parametrize(
    "destination",
    [
        REMOTE,
        "198.51.100.77",
        "198.51.100.2",
        "0.0.0.0",
        "::",
        "2001:db8:77::1",
        "2001:db8:9::2",
        "fe80::1%wan0",
    ],
)
@in_namespace
async def test_the_port_by_which_the_tunnel_goes_is_refused_with_the_reason(destination: str) -> None:
    two_sided_host()
    before = photograph()
    with pytest.raises(ConfigurationError) as refusal:
        await BridgeAttachment(WISH, destinations=lambda: [destination]).start()
    assert refusal.value.code == "carries_tunnel" and refusal.value.key == "bridges.br0.ports"
    assert "wan0" in refusal.value.reason and destination in refusal.value.reason
    assert_same_host(photograph(), before)
    with pytest.raises(ConfigurationError) as refusal:
        check_ports(WISH, [destination])
    assert refusal.value.code == "carries_tunnel"


@in_namespace
async def test_a_port_by_which_the_tunnel_does_not_go_is_accepted() -> None:
    two_sided_host()
    destinations = [REMOTE, "0.0.0.0", "::", "vpn.example.org", "198.51.100.2"]
    attachment = BridgeAttachment(replace(WISH, ports=("lan0",)), destinations=lambda: destinations)
    await attachment.start()
    try:
        assert members("br0") == {"lan0"} and attachment.status().problem is None
    finally:
        await attachment.stop()


@in_namespace
async def test_a_port_that_carries_the_tunnel_by_now_is_not_attached_again() -> None:
    two_sided_host()
    known: list[str] = []
    attachment = BridgeAttachment(replace(WISH, ports=("lan0",)), destinations=lambda: known)
    await attachment.start()
    try:
        known.append("10.1.2.3")
        ip("link set lan0 nomaster")
        await within(lambda: "lan0 carries the tunnel" in (attachment.status().problem or ""), "reported")
        assert members("br0") == set()
        known.clear()
        ip("link set lan0 alias look")
        await within(lambda: members("br0") == {"lan0"}, "attached")
        await within(lambda: attachment.status().problem is None, "no problem any more")
    finally:
        await attachment.stop()


@in_namespace
async def test_a_wan_that_appears_after_the_start_is_not_attached() -> None:
    cable("lan0")
    attachment = BridgeAttachment(WISH, destinations=lambda: [REMOTE])
    await attachment.start()
    try:
        ip(
            "link add wan1 type veth peer name wan1-x",
            "addr add 198.51.100.2/24 dev wan1",
            "link set wan1-x up",
            "link set wan1 up",
            "route add default via 198.51.100.1 dev wan1",
        )
        cable("wan0", up=False)
        # Nothing goes by wan0, so it may join; the tunnel goes by wan1.
        await within(lambda: members("br0") == {"lan0", "wan0"}, "attached")
    finally:
        await attachment.stop()


@in_namespace
async def test_a_bridge_that_holds_the_only_interface_already_is_adopted_as_it_is() -> None:
    cable("eth0")
    ip(
        "link add br0 type bridge",
        "link set br0 up",
        "link set eth0 master br0",
        "addr add 198.51.100.2/24 dev br0",
        "route add default via 198.51.100.1",
    )
    before = photograph()
    wish = replace(WISH, ports=("eth0",))
    check_ports(wish, [REMOTE, "0.0.0.0"])
    attachment = BridgeAttachment(wish, destinations=lambda: [REMOTE, "0.0.0.0"])
    await attachment.start()
    try:
        assert members("br0") == {"eth0"}
    finally:
        await attachment.stop()
    assert_same_host(photograph(), before)
