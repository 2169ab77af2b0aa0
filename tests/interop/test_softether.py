"""SoftEther's OpenVPN server: no cipher negotiation, DATA_V1, no wrapping of control packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.interop.interop_ends import Pinger, log_events, running
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bounds import at_least
from tests.lab.bridged_daemon import client
from tests.lab.frames import discovery_kit, missing_at
from tests.lab.pki import Identity, Usage
from tests.lab.softether import SoftEther

pytestmark = [pytest.mark.root, pytest.mark.measures]
TRAFFIC_SECONDS = 5.0
RENEGOTIATION_SECONDS = 2
WITHOUT_PADDING = {"igmp-query"}
"""SoftEther cuts what stands behind the IP packet in a short frame."""


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    with Lab("softether") as lab:
        yield TwoSites(lab)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_softether_server_is_joined_by_the_cipher_we_name_and_renegotiations_lose_nothing(
    sites: TwoSites, transport: Literal["udp", "tcp"]
) -> None:
    profile = Profile(wrap="none", transport=transport)

    def issue(name: str, usage: Usage) -> Identity:
        return profile.authority.issue(name, usage, key=rsa.generate_private_key(65537, 2048))

    own = issue("client", "client")
    server = SoftEther(sites.a, issue("server", "server"), {"client": own}).start()
    keys = {"renegotiate": {"seconds": RENEGOTIATION_SECONDS}}
    try:
        with running(client(sites.b, profile, own, sites.a.wan_ipv4, tunnel=keys)) as ours:
            ours.wait_connected()
            (peer,) = ours.connected_peers()
            assert (peer["cipher"], peer["key_derivation"], peer["wrap"]) == ("AES-256-GCM", "prf", "none")
            assert log_events(ours, "options_differ") == []
            here, there = sites.b.host, sites.a.host
            wait_for(lambda: here.reaches(there.ipv4), "frames to cross", 10)
            for source, target in ((there, here), (here, there)):
                changed = missing_at(source, target, discovery_kit(source, target), seconds=1.0)
                assert set(changed) <= WITHOUT_PADDING, changed
            pingers = (
                Pinger(here, there.ipv4, TRAFFIC_SECONDS),
                Pinger(there, here.ipv6, TRAFFIC_SECONDS),
            )
            assert [pinger.finish().lost for pinger in pingers] == [[], []]
            (outcomes,) = ours.tunnel()["renegotiations"].values()
            assert set(outcomes) == {"established"}
            at_least(outcomes["established"], 2, "renegotiations")
            assert ours.connected_peers()[0]["connections"] == 1
    finally:
        server.stop()
