"""A port with addresses and routes by router advertisements joins a bridge: they are renewed for ever."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from bridged.link_planning.wishes import BridgeWish
from bridged.netlink import BridgeAttachment
from bridged.netlink.learned_defaults import COPY_SECONDS
from tests.lab.bounds import at_most
from tests.lab.host_links import cable, shell, within
from tests.lab.namespace import in_namespace

pytestmark = pytest.mark.root

LIFETIME_SECONDS = 3
INTERVAL_SECONDS = 0.5
PREFIX = "2001:db8:77::"
ROUTER_MAC = bytes.fromhex("02aa00000001")
ROUTER = "fe80::1"
ROUTER_SOLICITATION = bytes((133,))
ETH_P_ALL = 3


class Router:
    """Advertises itself and a prefix, with short lifetimes, from the far end of a cable."""

    def __init__(self, link: str, life: int) -> None:
        self._life = life
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((link, 0))
        self._stopped = threading.Event()
        self._sent_at, self._longest_pause = time.monotonic(), 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._socket.close()

    @property
    def longest_pause(self) -> float:
        """The present one included."""
        return max(self._longest_pause, time.monotonic() - self._sent_at)

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_SECONDS):
            self._socket.send(advertisement(self._life))
            self._longest_pause = self.longest_pause
            self._sent_at = time.monotonic()


def advertisement(life: int) -> bytes:
    """RFC 4861, 4.2 and 4.6.2: default router, prefix on link and autonomous; `life` in seconds."""
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, life, life, 0) + socket.inet_pton(
        socket.AF_INET6, PREFIX
    )
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, life, 0, 0)
    body += struct.pack("!BB", 1, 1) + ROUTER_MAC + prefix
    source, target = (socket.inet_pton(socket.AF_INET6, text) for text in (ROUTER, "ff02::1"))
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total += sum(struct.unpack("!16H", source + target)) + len(body) + 58
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    packet = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + target + body
    return bytes.fromhex("333300000001") + ROUTER_MAC + b"\x86\xdd" + packet


@contextmanager
def advertising(link: str, life: int = LIFETIME_SECONDS) -> Iterator[Router]:
    router = Router(link, life)
    try:
        yield router
    finally:
        router.stop()


def state(name: str) -> tuple[bool, bool]:
    """Whether the link has an address of the prefix, and a default route."""
    rows: list[dict[str, Any]] = json.loads(shell(f"ip -j -6 addr show dev {name}") or "[]")
    found = [item for row in rows for item in row.get("addr_info", ()) if item["local"].startswith("2001:")]
    routes = json.loads(shell(f"ip -j -6 route show default dev {name}") or "[]")
    # What has expired is listed until the kernel collects it.
    return bool(found), any(route.get("expires", 1) > 0 for route in routes)


@pytest.mark.measures
@in_namespace
async def test_address_and_default_route_of_ports_with_slaac_are_renewed_over_three_lifetimes() -> None:
    """Of a host (br0) and of a router that takes advertisements all the same (br1)."""
    conf, pairs = "net.ipv6.conf", (("eth1", "br0", 0), ("eth2", "br1", 1))
    routers: list[Router] = []
    with ExitStack() as stack:
        for port, _, is_router in pairs:
            cable(port)
            shell(f"sysctl -qw {conf}.{port}.accept_ra={1 + is_router} {conf}.{port}.forwarding={is_router}")
            # Routes of one metric would be shown as one route by two links.
            shell(f"sysctl -qw {conf}.{port}.ra_defrtr_metric={1024 + 100 * is_router}")
            routers.append(stack.enter_context(advertising(f"{port}-x")))
        for port, _, _ in pairs:
            await within(lambda port=port: state(port) == (True, True), f"SLAAC on {port}", 15.0)
        attachments = [BridgeAttachment(BridgeWish(bridge, ports=(port,))) for port, bridge, _ in pairs]
        try:
            attaching = time.monotonic()
            for attachment in attachments:
                await attachment.start()
            began, gaps = time.monotonic(), []
            while time.monotonic() - began < 3 * LIFETIME_SECONDS + 1:
                for _, bridge, _ in pairs:
                    if await asyncio.to_thread(state, bridge) != (True, True):
                        gaps.append((bridge, round(time.monotonic() - began, 1)))
                await asyncio.sleep(0.1)
            routes = json.loads(shell("ip -j -6 route show default"))
            metrics = {route["metric"] for route in routes if route.get("expires", 1) > 0}
            if gaps or metrics != {1024, 1124}:
                # Nothing heard before the move, in it and after it, and the kernel's whole seconds.
                pause = max(router.longest_pause for router in routers)
                silence = 2 * pause + (began - attaching) + 1
                at_most(silence, LIFETIME_SECONDS, "a router's silence and the move")
            assert gaps == [], "address and default route are there at every moment"
            assert metrics == {1024, 1124}, "the kernel's own routes, and no copies of them"
            for _, bridge, is_router in pairs:
                for key, value in (("accept_ra", 1 + is_router), ("forwarding", is_router)):
                    assert shell(f"sysctl -n {conf}.{bridge}.{key}").strip() == str(value)
        finally:
            for attachment in attachments:
                await attachment.stop()
        assert [state(port) for port, _, _ in pairs] == [(True, True)] * 2, "given back at once"
        await asyncio.sleep(LIFETIME_SECONDS + 1)
        assert [state(port) for port, _, _ in pairs] == [(True, True)] * 2, "and for ever"


@in_namespace
async def test_hosts_keep_their_default_routes_when_a_bridge_begins_to_forward() -> None:
    """Routers of eth1 and eth3 say nothing more by themselves; br2 takes a router port's settings over."""
    conf, life, hosts = "net.ipv6.conf", 600, ("eth1", "eth3")
    for port, is_router in (("eth1", 0), ("eth2", 1), ("eth3", 0)):
        cable(port)
        shell(f"sysctl -qw {conf}.{port}.accept_ra={1 + is_router} {conf}.{port}.forwarding={is_router}")
        shell(f"sysctl -qw {conf}.{port}.ra_defrtr_metric={1024 + 100 * is_router}")
    with advertising("eth2-x", life), ExitStack() as silent:
        for port in hosts:
            silent.enter_context(advertising(f"{port}-x", life))
        for port in ("eth2", *hosts):
            await within(lambda port=port: state(port) == (True, True), f"SLAAC on {port}", 15.0)
        silent.close()
        attachment = BridgeAttachment(BridgeWish("br2", ports=("eth2",)))
        with solicitations("eth1-x") as first, solicitations("eth3-x") as second:
            await attachment.start()
            try:
                assert shell(f"sysctl -n {conf}.br2.forwarding").strip() == "1"
                metrics = set()
                for port in hosts:
                    (route,) = json.loads(shell(f"ip -j -6 route show default dev {port}"))
                    assert route["protocol"] == "ra" and 0 < route["expires"] <= COPY_SECONDS
                    metrics.add(route["metric"])
                assert metrics == {1026, 1027}, "the kernel has forgotten its own; copies are single routes"
                assert first() >= 1 and second() >= 1, "routers are asked"
            finally:
                await attachment.stop()


@in_namespace
async def test_a_port_gets_its_default_route_back_from_a_kept_copy() -> None:
    """The kernel forgot what br0 learned; its router says nothing more, and br0 is given back."""
    conf, life = "net.ipv6.conf", 600
    for port, is_router in (("eth1", 0), ("eth2", 1)):
        cable(port)
        shell(f"sysctl -qw {conf}.{port}.accept_ra={1 + is_router} {conf}.{port}.forwarding={is_router}")
        shell(f"sysctl -qw {conf}.{port}.ra_defrtr_metric={1024 + 100 * is_router}")
    host, router = (BridgeAttachment(BridgeWish(f"br{n}", ports=(f"eth{n}",))) for n in (1, 2))
    with advertising("eth2-x", life):
        with advertising("eth1-x", life):
            for port in ("eth1", "eth2"):
                await within(lambda port=port: state(port) == (True, True), f"SLAAC on {port}", 15.0)
            await host.start()
            await within(lambda: learned("br1") == {1024}, "the kernel's own route alone", 15.0)
        await router.start()
        try:
            assert learned("br1") == {1026}
            await host.stop()
            assert state("eth1") == (True, True)
        finally:
            await router.stop()


def learned(link: str) -> set[int]:
    """Metrics of the default routes by this link."""
    return {route["metric"] for route in json.loads(shell(f"ip -j -6 route show default dev {link}"))}


@contextmanager
def solicitations(link: str) -> Iterator[Callable[[], int]]:
    """A function that counts what routers at this link were asked, since it was called last."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as heard:
        heard.bind((link, ETH_P_ALL))
        heard.setblocking(False)

        def count() -> int:
            asked = 0
            with suppress(BlockingIOError):
                while True:
                    frame = heard.recv(2000)
                    asked += frame[12:14] == b"\x86\xdd" and frame[54:55] == ROUTER_SOLICITATION
            return asked

        yield count
