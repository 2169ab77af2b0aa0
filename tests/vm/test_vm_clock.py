"""A real step of the clock, which no other test may make."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from datetime import datetime
from typing import Literal

import pytest

from bridged.runtime.watchers.clock_steps import ClockSteps
from tests.lab.bridged_daemon import TUNNEL, Bridged, client, server
from tests.lab.core import Lab
from tests.lab.openvpn import Profile
from tests.lab.topology import TwoSites
from tests.lab.waiting import wait_for

DAY_SECONDS = 86400.0
REFUSALS = 8
"""The pause after so many takes 4 to 8 s."""
BOOTED_SECONDS = 60.0
"""What a router without a clock of its own calls the time that it has run for: it is still 1970."""
WOKEN_SECONDS = 6.0
FAR_STEPS = 60


TRANSPORTS: dict[str, Literal["udp", "tcp"]] = {TUNNEL: "udp", "second": "tcp"}
"""The two tunnels of each daemon."""


def both(first: Bridged, second: Bridged) -> Bridged:
    """One daemon with the tunnels of two; what the second one's frames would reach is a bridge of its own."""
    (tunnel,) = second.configuration["tunnels"].values()
    first.configuration["tunnels"]["second"] = tunnel | {"bridge": "br1", "tap": {"name": "tap1"}}
    first.configuration["bridges"]["br1"] = {"ports": []}
    first.write()
    return first


def refusals(daemon: Bridged) -> int:
    """Of the tunnel that was refused less often."""
    lines = [line for line in daemon.log.splitlines() if "handshake_failed" in line]
    return min(sum(f"tunnel={name}" in line for line in lines) for name in TRANSPORTS)


def woken_after(daemon: Bridged, tunnel: str) -> float:
    """How many seconds after the step of the clock the call began that reached the server.

    The handshake itself does not count: an emulated processor takes seconds for it.
    """
    steps = [line for line in daemon.log.splitlines() if " clock_set " in line]
    assert len(steps) == 1, daemon.log
    connected = [
        line for line in daemon.log.splitlines() if " peer_connected " in line and f"tunnel={tunnel}" in line
    ]
    took = re.search(r" seconds=([0-9.]+)", connected[-1])
    assert took is not None
    moments = [datetime.fromisoformat(line.split()[0]) for line in (steps[0], connected[-1])]
    return (moments[1] - moments[0]).total_seconds() - float(took[1])


def test_each_step_is_told_once_however_far_it_goes() -> None:
    """From 1970 to now and back."""
    right = time.time() - time.monotonic()
    told: list[float] = []

    started, done = threading.Event(), threading.Event()

    async def listen() -> None:
        steps = ClockSteps(lambda: told.append(time.time()))
        steps.start()
        started.set()
        while not done.is_set():
            await asyncio.sleep(0.01)
        steps.close()

    listener = threading.Thread(target=lambda: asyncio.run(listen()))
    listener.start()
    try:
        assert started.wait(60)
        for number in range(1, FAR_STEPS + 1):
            start = BOOTED_SECONDS if number % 2 else right
            time.clock_settime(time.CLOCK_REALTIME, start + time.monotonic())
            wait_for(lambda number=number: len(told) >= number, "the step to be told", 5, 0.02)
            time.sleep(0.1)
            assert len(told) == number
    finally:
        time.clock_settime(time.CLOCK_REALTIME, right + time.monotonic())
        done.set()
        listener.join(30)


@pytest.mark.parametrize("wrong", ["a month late", "1970"])
def test_a_clock_that_becomes_right_wakes_a_client_whose_certificates_were_not_valid_yet(wrong: str) -> None:
    profiles = [Profile(transport=transport) for transport in TRANSPORTS.values()]
    identities = [
        (profile.authority.issue("server", "server"), profile.authority.issue("client", "client"))
        for profile in profiles
    ]
    right = time.time() - time.monotonic()
    try:
        # The kernel refuses a time before that of the start of the machine.
        is_1970 = wrong == "1970"
        began_at = BOOTED_SECONDS + time.monotonic() if is_1970 else time.time() - 30 * DAY_SECONDS
        time.clock_settime(time.CLOCK_REALTIME, began_at)
        with Lab("vmclock") as lab:
            sites = TwoSites(lab)
            made = zip(profiles, identities, strict=True)
            pairs = [
                (server(sites.a, profile, own), client(sites.b, profile, far, sites.a.wan_ipv4))
                for profile, (own, far) in made
            ]
            ours, theirs = (both(first, second).start() for first, second in zip(*pairs, strict=True))
            wait_for(lambda: refusals(theirs) >= REFUSALS, "a client that waits longer and longer", 90)
            if is_1970:
                assert time.gmtime().tm_year == 1970
            time.clock_settime(time.CLOCK_REALTIME, right + time.monotonic())
            for name in TRANSPORTS:
                theirs.wait_connected(seconds=30, tunnel=name)
            assert all(woken_after(theirs, name) < WOKEN_SECONDS for name in TRANSPORTS), (
                theirs.log + ours.log
            )
            assert "clock_set" in ours.log
    finally:
        time.clock_settime(time.CLOCK_REALTIME, right + time.monotonic())
