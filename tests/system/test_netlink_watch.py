"""Changes on the host are told within a short while."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import pytest

from bridged.link_planning.wishes import BridgeWish
from bridged.netlink import BridgeAttachment, HostEvent, LinkWatch, route_socket
from tests.lab.host_links import cable, ip, link, within
from tests.lab.namespace import in_namespace

pytestmark = pytest.mark.root


def kinds(events: list[HostEvent]) -> set[tuple[str, str, bool]]:
    return {(event.kind, event.link, event.gone) for event in events}


@in_namespace
async def test_links_addresses_and_routes_that_change_are_told() -> None:
    heard: list[HostEvent] = []
    watch = LinkWatch()
    watch.start()
    unsubscribe = watch.subscribe(heard.extend)
    try:
        cable("eth1")
        await within(lambda: ("link", "eth1", False) in kinds(heard), "link")
        ip("addr add 192.0.2.2/24 dev eth1")
        await within(lambda: ("address", "eth1", False) in kinds(heard), "address")
        heard.clear()
        ip("route add 10.0.0.0/8 via 192.0.2.1")
        await within(lambda: ("route", "eth1", False) in kinds(heard), "route")
        heard.clear()
        ip("link add br0 type bridge", "link set eth1 master br0", "link set eth1 nomaster")
        await within(lambda: ("link", "eth1", False) in kinds(heard), "left the bridge")
        await asyncio.sleep(0.1)
        assert ("link", "eth1", True) not in kinds(heard), "it is not gone"
        ip("link del eth1")
        await within(lambda: ("link", "eth1", True) in kinds(heard), "gone")
        heard.clear()
        unsubscribe()
        cable("eth2")
        await asyncio.sleep(0.1)
        assert heard == []
    finally:
        watch.close()


@in_namespace
async def test_an_overflow_is_told_as_one_resync() -> None:
    heard: list[HostEvent] = []
    cable("eth1")
    watch = LinkWatch(receive_buffer_octets=4096)
    watch.start()
    watch.subscribe(heard.extend)
    try:
        changes = "\n".join(f"link set eth1 mtu {1300 + n % 2}" for n in range(200))
        subprocess.run(["ip", "-batch", "-"], input=changes, text=True, check=True, timeout=30)
        await within(lambda: HostEvent("resync") in heard, "resync")
        heard.clear()
        ip("link set eth1 mtu 1400")
        await within(lambda: ("link", "eth1", False) in kinds(heard), "still listening")
    finally:
        watch.close()


@in_namespace
async def test_links_that_are_not_ours_cost_no_look_and_no_decoding() -> None:
    """Hundreds of links come, change and go beside the bridge: it is not looked at once for them."""
    cable("eth1")
    attachment = BridgeAttachment(BridgeWish("br0", ports=("eth1",)))
    await attachment.start()
    looks, decoded = [], []
    look, decode = attachment._reconciler.look, route_socket._decoded

    def counted_look() -> float | None:
        looks.append(1)
        return look()

    def counted_decode(kind: type[Any], whole: bytes) -> Any:
        decoded.append(1)
        return decode(kind, whole)

    try:
        await within(lambda: attachment._task and not attachment._changed.is_set(), "the first look")
        # The links' own events of the start are heard by then, and the announcement is repeated.
        await asyncio.sleep(0.5)
        attachment._reconciler.look = counted_look
        others = range(150)
        await asyncio.to_thread(
            ip, *(f"link add v{number} type veth peer name w{number}" for number in others)
        )
        await asyncio.to_thread(ip, *(f"addr add 10.9.{number}.1/24 dev v{number}" for number in others))
        await asyncio.to_thread(ip, *(f"link set v{number} up" for number in others))
        await asyncio.to_thread(ip, *(f"link del v{number}" for number in reversed(others[75:])))
        await asyncio.sleep(0.3)
        assert looks == []
        route_socket._decoded = counted_decode
        ip("link set eth1 down")
        await within(lambda: link("eth1") and "UP" in link("eth1")["flags"], "the port up again")
        assert looks and len(decoded) < 150, "what is not of interest is not decoded"
        # A port of ours that goes has no name any more when that is heard.
        del looks[:]
        ip("link del eth1")
        await within(lambda: looks, "a look")
    finally:
        route_socket._decoded = decode
        await attachment.stop()
