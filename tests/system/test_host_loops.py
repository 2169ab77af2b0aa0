"""Two tunnels of one bridge that reach each other: one is blocked for as long as that is so."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from structlog.testing import capture_logs

from bridged.runtime.watchers import loop_guard
from bridged.runtime.watchers.loop_guard import LoopGuard
from tests.lab.host_links import cable, ip, is_forwarding, plugged, within
from tests.lab.namespace import in_namespace

pytestmark = pytest.mark.root


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markers every 0.2 s."""
    monkeypatch.setattr(loop_guard, "INTERVAL_SECONDS", 0.2)


class Loop:
    """What goes out of one TAP comes in at the other, as two tunnels to one far bridge would do."""

    def __init__(self, *descriptors: int) -> None:
        self.other = dict(zip(descriptors, reversed(descriptors), strict=True))
        self.frames = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            for descriptor in select.select(list(self.other), (), (), 0.05)[0]:
                frame = os.read(descriptor, 2048)
                self.frames += 1
                try:
                    os.write(self.other[descriptor], frame)
                except OSError:
                    continue


@contextmanager
def looping(*descriptors: int) -> Iterator[Loop]:
    loop = Loop(*descriptors)
    try:
        yield loop
    finally:
        loop.stop()


@pytest.mark.usefixtures("often")
@in_namespace
async def test_two_loops_are_both_told_and_the_end_of_one_leaves_the_other() -> None:
    guard = LoopGuard()
    with ExitStack() as stack:
        descriptors = {name: stack.enter_context(plugged(name)).fileno() for name in ("a0", "a1", "b0", "b1")}
        for name in descriptors:
            bridge = f"br{name[0]}"
            if name.endswith("0"):
                ip(f"link add {bridge} type bridge mcast_snooping 0", f"link set {bridge} up")
            ip(f"link set {name} master {bridge} up")
        guard.apply({"bra": ["a0", "a1"], "brb": ["b0", "b1"]})
        try:
            await within(lambda: is_forwarding(*descriptors), "all to forward", 10.0)
            with looping(descriptors["a0"], descriptors["a1"]):
                await within(
                    lambda: "a1 is blocked" in guard.warnings.get("tunnel_loop", ""), "one loop", 10.0
                )
                with looping(descriptors["b0"], descriptors["b1"]):
                    await within(lambda: "b1 is blocked" in guard.warnings["tunnel_loop"], "the other", 10.0)
                    assert "a1 is blocked" in guard.warnings["tunnel_loop"]
                await within(lambda: "b1 is blocked" not in guard.warnings["tunnel_loop"], "its end", 10.0)
                assert "a1 is blocked" in guard.warnings["tunnel_loop"]
            await within(lambda: guard.warnings == {}, "the end of both", 10.0)
        finally:
            guard.stop()


@pytest.mark.usefixtures("often")
@in_namespace
async def test_of_two_tunnels_of_one_bridge_that_reach_each_other_one_is_blocked_while_that_is_so() -> None:
    cable("eth1")
    ip("link add br0 type bridge mcast_snooping 0", "link set br0 up", "link set eth1 master br0")
    guard = LoopGuard()
    with plugged("tap0") as first, plugged("tap1") as second:
        ip("link set tap0 master br0 up", "link set tap1 master br0 up")
        guard.apply({"br0": ["tap0", "tap1"]})
        try:
            await within(lambda: is_forwarding("tap0", "tap1"), "both to forward", 10.0)
            await asyncio.sleep(0.5)
            assert guard.warnings == {} and is_forwarding("tap1")
            with looping(first.fileno(), second.fileno()) as loop:
                with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as station:
                    station.bind(("eth1-x", 0))
                    station.send(b"\xff" * 6 + b"\x02\xbb\0\0\0\1" + b"\x88\xb6" + bytes(50))
                await within(lambda: not is_forwarding("tap1"), "the later one blocked", 10.0)
                assert is_forwarding("tap0") and "tap1 is blocked" in guard.warnings["tunnel_loop"]
                await asyncio.sleep(0.3)
                before = loop.frames
                await asyncio.sleep(1.0)
                assert loop.frames - before < 100, "the storm is over; markers go on"
                assert not is_forwarding("tap1"), "as long as the loop is there"
                # A tunnel more before both, or the two the other way round and back.
                for order in (["tap9", "tap0", "tap1"], ["tap1", "tap0"], ["tap0", "tap1"]):
                    guard.apply({"br0": order})
                    for _ in range(20):
                        assert not is_forwarding("tap0", "tap1"), "one of them is always blocked"
                        await asyncio.sleep(0.05)
                await within(
                    lambda: is_forwarding("tap0") and not is_forwarding("tap1"), "the later one", 10.0
                )
            await within(lambda: is_forwarding("tap1"), "let in again", 10.0)
            assert guard.warnings == {}
            for ends in ("link set tap1 nomaster", "link del tap1"):
                with looping(first.fileno(), second.fileno()):
                    await within(lambda: not is_forwarding("tap1"), "blocked once more", 10.0)
                with capture_logs() as logged:
                    ip(ends)
                    guard.apply({"br0": ["tap0"]})
                assert guard.warnings == {} and logged == [], "there is nothing to unblock"
                if "nomaster" in ends:
                    ip("link set tap1 master br0")
                    await within(lambda: is_forwarding("tap1"), "forwarding in the bridge", 10.0)
                    guard.apply({"br0": ["tap0", "tap1"]})
        finally:
            guard.stop()
