"""Other generations of OpenVPN than the installed one: the thin set with each, in both roles.

What can be agreed with each is in `matrix.txt` (test_openvpn_matrix).
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import get_args

import pytest

from tests.interop.interop_ends import Pinger, Role, joined, log_events, wait_for_event
from tests.lab import Lab, Profile, TwoSites, openvpn_version, wait_for
from tests.lab.bounds import at_least, at_most
from tests.lab.openvpn import RELEASES

pytestmark = [pytest.mark.root, pytest.mark.measures]
TRAFFIC_SECONDS = 3.0
RENEGOTIATION_SECONDS = 2
OUTAGE_SECONDS = 1.0
NEW_ADDRESS = "203.0.113.77"
EXPORTER_SINCE = (2, 6)
TAP_MTU_WITH_32_MORE = ("2.5",)
"""They warn of every peer that says 1500, each other included when one is newer."""


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    # A lab of its own for each test: addresses change.
    with Lab("releases") as lab:
        yield TwoSites(lab, wan="switch")


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize("release", RELEASES)
def test_every_release_connects_carries_frames_renegotiates_floats_and_takes_leave(
    sites: TwoSites, release: str, ours_as: Role
) -> None:
    version = openvpn_version(release)
    assert version.startswith(f"{release}.")
    derivation = "exporter" if tuple(map(int, release.split("."))) >= EXPORTER_SINCE else "prf"
    keys = {"renegotiate": {"seconds": RENEGOTIATION_SECONDS}}
    with joined(sites, Profile(), ours_as, tunnel=keys, release=release) as ends:
        wait_for(ends.theirs.data_cipher, "OpenVPN to log its data channel", 5)
        peer = ends.peer()
        assert (peer["cipher"], peer["key_derivation"]) == ("AES-256-GCM", derivation)
        assert (ends.theirs.data_cipher(), ends.theirs.key_derivations()[-1]) == ("AES-256-GCM", derivation)
        if ours_as == "server":
            assert peer["peer_version"] == version
        assert log_events(ends.ours, "options_differ") == []
        inconsistent = re.findall(r"'([a-z-]+)' is used inconsistently", ends.theirs.log)
        assert set(inconsistent) <= ({"tun-mtu"} if release in TAP_MTU_WITH_32_MORE else set()), inconsistent
        # Two ends of 2.7 use epochs.
        assert ("aead-epoch" in ends.theirs.log) == (version >= "2.7")
        ends.ping_both_ways()
        assert ends.changed_frames() == {}
        ours, theirs = ends.our_site.host, ends.their_site.host
        pingers = (Pinger(ours, theirs.ipv4, TRAFFIC_SECONDS), Pinger(theirs, ours.ipv6, TRAFFIC_SECONDS))
        assert [pinger.finish().lost for pinger in pingers] == [[], []]
        done = ends.ours.tunnel()["renegotiations"].get("time", {}).get("established", 0)
        at_least(min(done, ends.theirs.renegotiations()), 1, "renegotiations")
        assert ends.unwanted_drops() == {}
        moving = Pinger(sites.b.host, sites.a.host.ipv4, 1.5)
        sites.b.change_wan_ipv4(NEW_ADDRESS)
        at_most(moving.finish().longest_outage, OUTAGE_SECONDS, "an outage")
        if ours_as == "server":
            wait_for_event(ends.ours, "peer_floated", NEW_ADDRESS)
        ends.ping_both_ways()
        assert ends.peer()["connections"] == 1
        # Right after a renegotiation: in the middle of one, OpenVPN's farewell waits for its end and is lost.
        before = ends.theirs.renegotiations()
        wait_for(lambda: ends.theirs.renegotiations() > before, "a renegotiation")
        ends.theirs.started.send_signal(signal.SIGTERM)
        wait_for_event(ends.ours, "peer_disconnected", "exit_notify")
