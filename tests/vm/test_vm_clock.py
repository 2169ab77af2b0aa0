"""A real step of the clock, which no other test may make."""

from __future__ import annotations

import time
from typing import Literal

import pytest

from tests.lab.bridged_daemon import client, server
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


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("wrong", ["a month late", "1970"])
def test_a_clock_that_becomes_right_wakes_a_client_whose_certificates_were_not_valid_yet(
    wrong: str, transport: Literal["udp", "tcp"]
) -> None:
    profile = Profile(transport=transport)
    issue = profile.authority.issue
    identities = issue("server", "server"), issue("client", "client")
    right = time.time() - time.monotonic()
    try:
        # The kernel refuses a time before that of the start of the machine.
        is_1970 = wrong == "1970"
        began_at = BOOTED_SECONDS + time.monotonic() if is_1970 else time.time() - 30 * DAY_SECONDS
        time.clock_settime(time.CLOCK_REALTIME, began_at)
        with Lab("vmclock") as lab:
            sites = TwoSites(lab)
            ours = server(sites.a, profile, identities[0]).start()
            far = client(sites.b, profile, identities[1], sites.a.wan_ipv4).start()

            def is_refused() -> bool:
                return far.log.count("handshake_failed") >= REFUSALS

            wait_for(is_refused, "a client that waits longer and longer", 90)
            if is_1970:
                assert time.gmtime().tm_year == 1970
            time.clock_settime(time.CLOCK_REALTIME, right + time.monotonic())
            began = time.monotonic()
            far.wait_connected(seconds=30)
            assert time.monotonic() - began < WOKEN_SECONDS, far.log
            assert "clock_set" in far.log and "clock_set" in ours.log
    finally:
        time.clock_settime(time.CLOCK_REALTIME, right + time.monotonic())
