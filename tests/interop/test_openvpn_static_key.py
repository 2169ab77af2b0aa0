"""Links with a static key and real OpenVPN: no TLS, either end may call."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from tests.interop.interop_ends import Role, wait_for_event
from tests.interop.static_key_ends import linked
from tests.lab import Lab, TwoSites, wait_for
from tests.lab.relay import Relay
from tests.lab.topology import WAN_PORT
from tests.lab.waiting import PATIENCE

pytestmark = pytest.mark.root

RELAY_ADDRESS = "203.0.113.1"
CELLS = [
    ("2.6", "AES-256-CBC", "SHA256", True),
    ("2.6", "AES-128-CBC", "SHA1", False),
    ("2.5", "AES-256-CBC", "SHA512", True),
]


TCP_CELLS = [("2.6", "auto", False), ("2.6", "portable", True), ("2.5", "auto", True)]


@pytest.fixture(scope="module")
def sites() -> Iterator[TwoSites]:
    with Lab("static") as lab:
        yield TwoSites(lab)


@pytest.fixture(scope="module")
def reflected() -> Iterator[TwoSites]:
    with Lab("reflects") as lab:
        yield TwoSites(lab, wan="switch")


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(("release", "cipher", "digest", "has_directions"), CELLS)
def test_frames_cross_and_the_farewell_is_heard(
    sites: TwoSites, ours_as: Role, release: str, cipher: str, digest: str, has_directions: bool
) -> None:
    with linked(sites, ours_as, release, cipher, digest, has_directions) as ends:
        ends.their_site.host.ping(ends.our_site.host.ipv6, count=3, interval_seconds=0.02)
        peer = ends.peer()
        assert (peer["cipher"], peer["key_derivation"], peer["wrap"]) == (cipher, "static", "static-key")
        assert any("no forward secrecy" in line for line in ends.ours.log.splitlines())
        assert "Authenticate/Decrypt" not in ends.theirs.log
        ends.theirs.started.send_signal(signal.SIGTERM)
        wait_for_event(ends.ours, "peer_disconnected", "exit_notify")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_recorded_opens_no_session_after_a_restart(sites: TwoSites, number: int) -> None:
    """OpenVPN needs `replay-persist` for that."""
    with sites.a.namespace.entered():
        recorder = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    with recorder, linked(sites, "server", "2.6", "AES-256-CBC", "SHA256", True) as ends:
        recorder.bind((WAN_PORT, 0x0800))
        ends.ping_both_ways()
        recorder.setblocking(False)
        recorded = []
        while len(recorded) < 5:
            packet, (_, _, kind, _, _) = recorder.recvfrom(65_535)
            if kind == socket.PACKET_HOST and packet[9] == socket.IPPROTO_UDP:
                recorded.append(packet[28:])
        if number == signal.SIGKILL:
            state = ends.ours.state_directory / "replays"
            wait_for(lambda: mark_in(state) >= len(recorded), "the mark", 15)
        ends.theirs.stop(signal.SIGKILL)
        ends.ours.stop(number)
        ends.ours.start()
        with sites.b.namespace.entered():
            attacker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with attacker:
            for packet in recorded:
                attacker.sendto(packet, (sites.a.wan_ipv4, 1194))
        drops = wait_for(lambda: ends.ours.tunnel()["control_drops"].get("receive"), "the replays", 5)
        wait_for(
            lambda: ends.ours.tunnel()["control_drops"]["receive"].get("replay") == 5, f"5 of {drops}", 5
        )
        assert ends.ours.connected_peers() == []
        ends.theirs.start()
        wait_for(lambda: ends.our_site.host.reaches(ends.their_site.host.ipv4), "frames to cross", 15)


def mark_in(state: Path) -> int:
    """The packet id of the mark; 0 before there is one. A name with a dot is a file under way."""
    marks = [int(file.read_text().split()[1]) & 0xFFFFFFFF for file in state.glob("[!.]*")]
    assert len(marks) <= 1, marks
    return sum(marks)


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize("build", ["auto", "portable"])
def test_a_relay_that_reflects_cannot_shut_the_peer_out_where_the_key_has_no_direction(
    reflected: TwoSites, build: str, ours_as: Role
) -> None:
    """Our packets have a later time than the peer's: taken for its own, they make replays of all that follow.

    OpenVPN cannot tell its own from ours.
    """
    there, back = (RELAY_ADDRESS, 1194), (reflected.a.wan_ipv4, 1194)
    relay = Relay(reflected.wan_namespace, there, back)
    try:
        over_relay = linked(
            reflected, ours_as, "2.6", "AES-256-CBC", "SHA256", False, build=build, relay=RELAY_ADDRESS
        )
        with over_relay as ends:
            ours, theirs = ends.our_site.host, ends.their_site.host
            ends.ours.stop(signal.SIGKILL)
            ends.ours.start()
            wait_for(lambda: ours.reaches(theirs.ipv4), "frames to cross", 20)
            relay.change(reflect="target" if ours_as == "server" else "clients")
            for _ in range(3):
                ends.ping_both_ways()
            assert relay.counters()["reflected"] > 20
            assert ends.ours.drops()["receive reflected"] > 10
            assert "peer_packets_older" not in ends.ours.log
            ends.theirs.started.send_signal(signal.SIGTERM)
            wait_for_event(ends.ours, "peer_disconnected", "exit_notify")
    finally:
        relay.process.stop()


@pytest.mark.parametrize("ours_as", get_args(Role))
@pytest.mark.parametrize(("release", "build", "is_ipv6"), TCP_CELLS)
def test_frames_cross_over_tcp_and_both_ends_return_after_a_restart_of_openvpn(
    sites: TwoSites, ours_as: Role, release: str, build: str, is_ipv6: bool
) -> None:
    over_tcp = linked(
        sites, ours_as, release, "AES-256-CBC", "SHA256", True, transport="tcp", build=build, is_ipv6=is_ipv6
    )
    with over_tcp as ends:
        peer = ends.peer()
        assert (peer["transport"], peer["wrap"], peer["key_derivation"]) == ("tcp", "static-key", "static")
        ends.ping_both_ways(count=20)
        assert ends.changed_frames() == {}
        assert ends.unwanted_drops() == {}
        ends.theirs.restart_soft()
        wait_for_event(ends.ours, "peer_disconnected")
        ours, theirs = ends.our_site.host, ends.their_site.host
        wait_for(lambda: ours.reaches(theirs.ipv4), "frames to cross again", 20)
        ends.ping_both_ways()
        assert "Authenticate/Decrypt" not in ends.theirs.log
        assert "bad packet ID" not in ends.theirs.log


def test_strangers_at_the_port_of_a_static_key_disturb_nobody(sites: TwoSites) -> None:
    with linked(sites, "server", "2.6", "AES-256-CBC", "SHA256", True, transport="tcp") as ends:
        with ends.their_site.namespace.entered():
            strangers = [socket.create_connection((sites.a.wan_ipv4, 1194)) for _ in range(3)]
        for stranger, first in zip(strangers, (b"", bytes(2), b"\0\x60" + bytes(96)), strict=True):
            stranger.sendall(first)
        for stranger in strangers[1:]:
            stranger.settimeout(5 * PATIENCE)
            assert stranger.recv(1) == b"", "it was not cut off"
        ends.ping_both_ways()
        assert ends.peer()["connections"] == 1
        for stranger in strangers:
            stranger.close()
