"""Point-to-point links with real OpenVPN: no `mode server`, no `client`, nothing is pushed."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from typing import get_args

import pytest

from bridged.protocol.keys.static_key import parse_static_key
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode, serialize_body
from bridged.protocol.packets.wrap import TlsAuthKeys, WrapChannel, first_numbers
from bridged.units import KeyId
from tests.interop.interop_ends import Role, joined, openvpn, running, wait_for_event
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bridged_daemon import client
from tests.lab.openvpn import COMPLETED, RELEASES

pytestmark = pytest.mark.root

CELLS = [
    ("2.5", "tls-crypt", "AES-256-GCM", "prf"),
    ("2.6", "tls-auth", "AES-256-GCM", "exporter"),
    ("2.6", "none", "AES-256-CBC", "exporter"),
    ("2.7", "tls-crypt", "CHACHA20-POLY1305", "exporter"),
]
assert {release for release, *_ in CELLS} == set(RELEASES)


TAKEN = "TLS: Initial packet from|TLS: new session incoming connection from"
"""What OpenVPN says of the first packet of a session; 2.5 has words of its own for all but the first."""


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("p2p") as lab:
        yield TwoSites(lab)


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(("release", "wrap", "cipher", "derivation"), CELLS)
def test_frames_cross_over_a_renegotiation_and_the_farewell_is_heard(
    sites: TwoSites, ours_as: Role, release: str, wrap: str, cipher: str, derivation: str
) -> None:
    profile = Profile(wrap=wrap, ciphers=(cipher,), point_to_point=True)  # type: ignore[arg-type]
    extra = (f"cipher {cipher}",) if release == "2.5" else ()
    tunnel = {"renegotiate": {"seconds": 2}}
    with joined(sites, profile, ours_as, release=release, extra=extra, tunnel=tunnel) as ends:
        peer = ends.peer()
        assert (peer["cipher"], peer["key_derivation"]) == (cipher, derivation)
        wait_for(lambda: ends.our_site.host.reaches(ends.their_site.host.ipv4), "frames to cross", 10)
        ends.ping_both_ways()
        before = ends.theirs.renegotiations()
        wait_for(lambda: ends.theirs.renegotiations() > before, "a renegotiation")
        ends.ping_both_ways()
        assert ends.peer()["connections"] == 1
        assert set(ends.unwanted_drops()) <= {"receive unknown_key_id", "receive no_key"}
        # OpenVPN takes the key that wraps renegotiations when it is up, two seconds after the handshake: ours
        # may begin at that moment, and is repeated.
        _, _, since_up = ends.theirs.log.partition(COMPLETED)
        assert since_up and re.findall("Authenticate/Decrypt.*|bad packet ID.*", since_up) == []
        # In the middle of a renegotiation its farewell waits for the end, and is lost.
        before = ends.theirs.renegotiations()
        wait_for(lambda: ends.theirs.renegotiations() > before, "another renegotiation")
        ends.theirs.stop()
        wait_for_event(ends.ours, "peer_disconnected", "exit_notify")


@pytest.mark.parametrize("release", RELEASES)
def test_openvpn_takes_every_call_within_a_second(sites: TwoSites, release: str) -> None:
    """It has one replay window for all sessions that begin (decision 124)."""
    profile = Profile(wrap="tls-auth", point_to_point=True)
    keys = TlsAuthKeys(parse_static_key(profile.wrap_key, "the lab"), 1)
    identity = profile.authority.issue("server", "server")

    def call(numbers: tuple[int, int]) -> bytes:
        """The first packet of a new session."""
        header = ControlHeader(Opcode.HARD_RESET_CLIENT_V2, KeyId(0), os.urandom(8))
        return WrapChannel(keys, *numbers).wrap(header, serialize_body(ControlBody((), None, 0, b"")))

    with openvpn(sites.a, "server", profile, identity, release=release) as theirs:
        theirs.started.wait_for_output("UDPv4 link local", 10)
        with sites.b.namespace.entered():
            caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with caller:
            for _ in range(5):
                caller.sendto(call(first_numbers(time.time(), 1)), (sites.a.wan_ipv4, profile.port))
            wait_for(lambda: len(re.findall(TAKEN, theirs.log)) == 5, "all calls to be taken")
            assert "bad packet ID" not in theirs.log
            # The same numbers twice: this is what was wrong.
            for _ in range(2):
                caller.sendto(call((int(time.time()) + 10, 1)), (sites.a.wan_ipv4, profile.port))
            theirs.started.wait_for_output("bad packet ID", 5)
        assert len(re.findall(TAKEN, theirs.log)) == 6


def test_our_end_finds_a_server_that_was_busy(sites: TwoSites) -> None:
    """It finds the first packets of several calls, and has room for one session that is not through."""
    profile = Profile(point_to_point=True)
    issue = profile.authority.issue
    with openvpn(sites.a, "server", profile, issue("server", "server"), release="2.6") as theirs:
        theirs.started.wait_for_output("UDPv4 link local", 10)
        theirs.started.send_signal(signal.SIGSTOP)
        with running(client(sites.b, profile, issue("client", "client"), sites.a.wan_ipv4)) as ours:
            wait_for_event(ours, "no_answer")
            theirs.started.send_signal(signal.SIGCONT)
            ours.wait_connected(seconds=10)
            wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "frames to cross", 10)
