"""Tunnels over TCP on a line of 200 ms that loses one packet in a hundred: two of ours, and one with OpenVPN.

TCP repeats what is lost; everything behind it waits. No end may take that for a dead peer.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.interop.interop_ends import Role, joined, running
from tests.lab import Lab, Profile, TwoSites
from tests.lab.bounds import takes_at_most
from tests.lab.bridged_daemon import Bridged, client, server
from tests.lab.long_line import long_line
from tests.lab.topology import Host
from tests.lab.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.measures]
ROUND_TRIP, LOSS = 0.2, 0.01
CONNECT_SECONDS = 8.0
TRANSFER_OCTETS = 60_000
PORT = 5000
IMPATIENT = Profile(transport="tcp", ping_seconds=1, restart_seconds=5)
"""Five seconds of silence end a session: a stall that TCP mends must stay below."""


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    with Lab("longline") as lab:
        made = TwoSites(lab, wan="router")
        with long_line(made, ROUND_TRIP, LOSS):
            yield made


def transfer(source: Host, target: Host) -> None:
    """Bytes by TCP from one LAN to the other, all of them."""
    with target.namespace.entered():
        listener = socket.create_server((target.ipv4, PORT))
    with source.namespace.entered():
        out = socket.socket()
    with listener, out:
        out.settimeout(40)
        out.connect((target.ipv4, PORT))
        into, _ = listener.accept()
        with into:
            into.settimeout(40)
            sent = bytes(range(256)) * (TRANSFER_OCTETS // 256)
            out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * TRANSFER_OCTETS)
            out.setblocking(False)
            at = 0
            received = bytearray()
            into.setblocking(False)
            deadline = time.monotonic() + 40
            while len(received) < len(sent) and time.monotonic() < deadline:
                try:
                    at += out.send(sent[at:]) if at < len(sent) else 0
                except BlockingIOError:
                    pass
                try:
                    received += into.recv(1 << 20)
                except BlockingIOError:
                    time.sleep(0.005)
            assert received == sent


def assert_one_session(daemon: Bridged) -> None:
    (peer,) = daemon.connected_peers()
    assert peer["connections"] == 1, daemon.log
    assert daemon.log.count("peer_disconnected") == 0, daemon.log


def renewed(daemon: Bridged) -> int:
    found: int = daemon.tunnel()["renegotiations"].get("time", {}).get("established", 0)
    return found


def carry(ours: Host, theirs: Host) -> None:
    for source, target in ((ours, theirs), (theirs, ours)):
        source.ping(target.ipv4, count=5, interval_seconds=0.05)
        source.ping(target.ipv6, count=5, interval_seconds=0.05)
        transfer(source, target)


@pytest.mark.parametrize(
    ("build", "is_ipv6"), [pytest.param("native", False, marks=pytest.mark.native), ("portable", True)]
)
def test_two_of_ours_connect_carry_frames_and_stay_connected(
    sites: TwoSites, build: str, is_ipv6: bool
) -> None:
    issue = IMPATIENT.authority.issue
    keys = {"dataplane": build, "renegotiate": {"seconds": 4}}
    far = f"[{sites.a.wan_ipv6}]:{IMPATIENT.port}" if is_ipv6 else sites.a.wan_ipv4
    listen = f"[::]:{IMPATIENT.port}" if is_ipv6 else ""
    with ExitStack() as stack:
        first = server(sites.a, IMPATIENT, issue("server", "server"), tunnel=keys, listen=listen)
        stack.enter_context(running(first))
        second = client(
            sites.b, IMPATIENT, issue("client", "client"), far + ("/tcp" if is_ipv6 else ""), tunnel=keys
        )
        with takes_at_most(CONNECT_SECONDS, "the handshake over a long line"):
            stack.enter_context(running(second))
            second.wait_connected()
        first.wait_connected()
        carry(sites.a.host, sites.b.host)
        wait_for(lambda: renewed(first) + renewed(second), "another key", 20)
        sites.a.host.ping(sites.b.host.ipv4, count=10, interval_seconds=0.05)
        for daemon in (first, second):
            assert_one_session(daemon)


@pytest.mark.parametrize("ours_as", ["server", "client"])
def test_with_openvpn_at_the_other_end(sites: TwoSites, ours_as: Role) -> None:
    with joined(sites, IMPATIENT, ours_as) as ends:
        carry(ends.our_site.host, ends.their_site.host)
        assert_one_session(ends.ours)
        assert "Restart pause" not in ends.theirs.log, ends.theirs.log
