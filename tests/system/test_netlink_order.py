"""Whatever the order in which port, bridge and TAP appear, and whichever vanishes, the end is the same."""

from __future__ import annotations

import itertools

import pytest

from bridged.addresses import MacAddress
from bridged.link_planning.wishes import BridgeTap, BridgeWish
from bridged.netlink import BridgeAttachment
from tests.lab.host_links import addresses, cable, ip, link, members, tap, within
from tests.lab.namespace import in_namespace

pytestmark = pytest.mark.root

KEPT_MAC = MacAddress.parse("02:00:5e:00:00:07")
WISH = BridgeWish(
    "br0",
    ports=("eth1",),
    taps=(BridgeTap("tap0", queue_frames=4096),),
    addresses=("192.0.2.1/24", "2001:db8::1/64"),
    mtu=1400,
    fallback_mac=KEPT_MAC,
)


def bridge_appears() -> None:
    """Its owner makes it, whether or not there is one by now."""
    if link("br0") is not None:
        ip("link del br0")
    ip("link add br0 type bridge")


def is_complete() -> bool:
    bridge, port, adapter = link("br0"), link("eth1"), link("tap0")
    if bridge is None or port is None or adapter is None:
        return False
    return (
        members("br0") == {"eth1", "tap0"}
        and all("UP" in found["flags"] and found["mtu"] == 1400 for found in (bridge, port, adapter))
        and adapter["txqlen"] == 4096
        and adapter["linkinfo"].get("info_slave_data", {}).get("multicast_router") == 2
        and addresses("br0") == {"192.0.2.1", "2001:db8::1"}
    )


@pytest.mark.parametrize("order", list(itertools.permutations(("port", "tap", "bridge", "start"))))
@in_namespace
async def test_any_order_of_appearance_ends_in_the_same_state_within_two_seconds(
    order: tuple[str, ...],
) -> None:
    attachment = BridgeAttachment(WISH)
    try:
        for step in order:
            match step:
                case "port":
                    cable("eth1", up=False)
                case "tap":
                    tap("tap0")
                case "bridge":
                    bridge_appears()
                case "start":
                    await attachment.start()
        await within(is_complete, f"complete after {order}")
        await within(lambda: all(attachment.status().ports[name] for name in ("eth1",)), "status says so")
    finally:
        await attachment.stop()
    # Made by its owner, in every one of these orders.
    assert link("br0") is not None and members("br0") == set()
    assert addresses("br0") == set()


@pytest.mark.parametrize("order", list(itertools.permutations(("port", "tap", "start"))))
@in_namespace
async def test_without_a_bridge_one_is_made_and_goes_at_the_end(order: tuple[str, ...]) -> None:
    attachment = BridgeAttachment(WISH)
    try:
        for step in order:
            match step:
                case "port":
                    cable("eth1", up=False)
                case "tap":
                    tap("tap0")
                case "start":
                    await attachment.start()
        await within(is_complete, f"complete after {order}")
        assert not attachment.status().adopted
    finally:
        await attachment.stop()
    port = link("eth1")
    assert link("br0") is None
    assert port is not None and port["mtu"] == 1500 and "UP" not in port["flags"]


@pytest.mark.parametrize("vanishing", ["port", "tap", "bridge"])
@in_namespace
async def test_a_link_that_vanishes_and_comes_back_is_attached_again(vanishing: str) -> None:
    cable("eth1")
    tap("tap0")
    attachment = BridgeAttachment(WISH)
    await attachment.start()
    try:
        assert is_complete()
        for _ in range(3):
            match vanishing:
                case "port":
                    ip("link del eth1")
                    await within(lambda: members("br0") == {"tap0"}, "the rest stays")
                    cable("eth1", up=False)
                case "tap":
                    ip("link del tap0")
                    await within(lambda: members("br0") == {"eth1"}, "the rest stays")
                    tap("tap0")
                case "bridge":
                    ip("link del br0")
            await within(is_complete, f"{vanishing} came back")
        action = "create" if vanishing == "bridge" else "attach"
        await within(lambda: attachment.status().repairs.get(action) == 3, "counted")
    finally:
        await attachment.stop()
    assert link("br0") is None


@in_namespace
async def test_an_adopted_bridge_that_is_deleted_is_made_again_within_two_seconds() -> None:
    cable("eth1")
    tap("tap0")
    ip("link add br0 address 02:00:5e:00:00:42 type bridge ageing_time 4200")
    attachment = BridgeAttachment(WISH)
    await attachment.start()
    try:
        assert attachment.status().adopted
        ip("link del br0")
        await within(is_complete, "made again")
        bridge = link("br0")
        assert bridge is not None and bridge["address"] == "02:00:5e:00:00:42"
        assert bridge["linkinfo"]["info_data"]["ageing_time"] == 4200
    finally:
        await attachment.stop()
