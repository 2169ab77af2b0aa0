"""Changes on the host are told within a short while."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from netlink_namespace import cable, in_namespace, ip, within

from bridged.netlink import HostEvent, LinkWatch

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
