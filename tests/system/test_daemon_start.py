"""How long the start of a daemon takes, to the first frame that it forwards."""

from __future__ import annotations

import time

import pytest

from tests.lab import HOST_PORT, Lab, Profile, TwoSites, bridged_daemon
from tests.lab.bounds import at_most_or
from tests.lab.references import LIBRARIES, loading
from tests.system.daemon_lab import pinging

FIRST_FRAME_SECONDS = 1.0
LOADINGS = 2.5
"""On a slow machine: times what the libraries alone take to load. Most of a start is loading."""


@pytest.mark.root
@pytest.mark.native
@pytest.mark.measures
def test_a_frame_crosses_less_than_a_second_after_a_daemon_was_started() -> None:
    with Lab("start") as lab:
        sites = TwoSites(lab)
        profile = Profile()
        issue = profile.authority.issue
        near, far = sites.a.host, sites.b.host
        # A question for the address, asked before the start, would be repeated after a second only.
        for host, other in ((near, far), (far, near)):
            host.namespace.ip(
                *("neigh", "replace", other.ipv4, "lladdr", other.mac, "nud", "permanent", "dev", HOST_PORT)
            )
        bridged_daemon.server(sites.a, profile, issue("server", "server")).start()
        with pinging(near, far.ipv4) as pings:
            client = bridged_daemon.client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4)
            began = time.time()
            client.start(wait=False)
            pings.wait_for_answers(1)
            took = pings.answers()[0][0] - began
        what = "the start to the first frame"
        at_most_or(took, FIRST_FRAME_SECONDS, LOADINGS, lambda: loading(*LIBRARIES), what)
