"""Links of two of ours with a static key over TCP: who is the peer, and what strangers and replays can do."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import static_data_key
from bridged.protocol.keys.static_key import parse_static_key
from bridged.protocol.packets.cbc_packet import BLOCK, CbcHmac
from bridged.protocol.packets.occ import PING
from bridged.protocol.packets.static_packet import seal_static
from tests.interop.interop_ends import running
from tests.lab import Lab, Profile, TwoSites, wait_for
from tests.lab.bounds import at_least
from tests.lab.bridged_daemon import Bridged, client, server
from tests.lab.pki import Identity
from tests.lab.waiting import PATIENCE

pytestmark = pytest.mark.root
BUILDS = [pytest.param("native", marks=pytest.mark.native), "portable"]
NOBODY = Identity("", "", "", 0)
CIPHER, DIGEST = "AES-256-CBC", "SHA256"
PROFILE = Profile(wrap="none", transport="tcp", ping_seconds=1, restart_seconds=6)


@pytest.fixture
def sites() -> Iterator[TwoSites]:
    with Lab("statictcp") as lab:
        yield TwoSites(lab)


def keys(build: str, direction: int | None) -> dict[str, Any]:
    wrap: dict[str, Any] = {"mode": "static-key", "key": PROFILE.wrap_key, "digest": DIGEST}
    wrap |= {} if direction is None else {"direction": direction}
    return {"wrap": wrap, "ciphers": [CIPHER], "tls": {}, "point_to_point": True, "dataplane": build}


def waiting(sites: TwoSites, build: str, is_ipv6: bool = False, direction: int | None = 0) -> Bridged:
    listen = f"[::]:{PROFILE.port}" if is_ipv6 else ""
    return server(sites.a, PROFILE, NOBODY, tunnel=keys(build, direction), listen=listen)


def calling(sites: TwoSites, build: str, is_ipv6: bool = False) -> Bridged:
    far = f"[{sites.a.wan_ipv6}]:{PROFILE.port}/tcp" if is_ipv6 else sites.a.wan_ipv4
    return client(sites.b, PROFILE, NOBODY, far, tunnel=keys(build, 1))


class Hand:
    """The calling end, by hand: each connection begins with a packet of this time."""

    def __init__(self, sites: TwoSites, direction: int | None = 1) -> None:
        self._sites = sites
        text = parse_static_key(PROFILE.wrap_key, "test")
        key = static_data_key(text, direction, Cipher(CIPHER), DIGEST, 1)
        self._seal = CbcHmac(key.send_key, DIGEST, key.send_hmac)

    def packet(self, at: int) -> bytes:
        sealed = seal_static(self._seal, os.urandom(BLOCK), 1, at, PING)
        return len(sealed).to_bytes(2, "big") + sealed

    def call(self, first: bytes) -> socket.socket:
        with self._sites.b.namespace.entered():
            made = socket.create_connection((self._sites.a.wan_ipv4, PROFILE.port), timeout=5 * PATIENCE)
        made.sendall(first)
        return made


def is_cut_off(connection: socket.socket) -> bool:
    connection.settimeout(5 * PATIENCE)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("is_ipv6", [False, True])
@pytest.mark.parametrize("build", BUILDS)
def test_frames_cross_and_a_lost_connection_is_made_again(sites: TwoSites, build: str, is_ipv6: bool) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(running(waiting(sites, build, is_ipv6)))
        second = stack.enter_context(running(calling(sites, build, is_ipv6)))
        wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "frames to cross", 10)
        for source, target in ((sites.a, sites.b), (sites.b, sites.a)):
            source.host.ping(target.host.ipv6, count=10, interval_seconds=0.02)
        assert [peer["transport"] for peer in first.connected_peers()] == ["tcp"]
        sites.a.namespace.run("ss", "-K", "state", "established", "sport", "=", f":{PROFILE.port}")
        wait_for(lambda: second.log.count("peer_disconnected") >= 1, "the connection to be lost", 10)
        wait_for(lambda: sites.b.host.reaches(sites.a.host.ipv4), "frames to cross again", 10)


@pytest.mark.parametrize("build", BUILDS)
def test_silence_ends_a_connection_and_the_peer_comes_back(sites: TwoSites, build: str) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(running(waiting(sites, build)))
        second = stack.enter_context(running(calling(sites, build)))
        first.wait_connected()
        second.started.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: first.log.count("peer_disconnected") == 1, "the silence to be noticed", 15)
        finally:
            second.started.send_signal(signal.SIGCONT)
        wait_for(lambda: sites.a.host.reaches(sites.b.host.ipv4), "frames to cross again", 10)


@pytest.mark.parametrize("build", BUILDS)
def test_the_newest_authentic_connection_is_the_peer_and_a_replay_is_none(
    sites: TwoSites, build: str
) -> None:
    hand, now = Hand(sites), int(time.time())
    with running(waiting(sites, build)) as daemon:
        old = hand.packet(now)
        before = hand.call(old)
        daemon.wait_connected()
        endpoint = daemon.connected_peers()[0]["endpoint"]
        for first in (
            old,
            hand.packet(now),
            hand.packet(now - 9),
            old[:-1] + bytes(1),
            bytes(2),
            b"\x7f\xff",
        ):
            assert is_cut_off(hand.call(first)), first[:4]
        assert daemon.connected_peers()[0]["endpoint"] == endpoint
        slow = hand.call(hand.packet(now + 1)[:50])
        later = hand.call(hand.packet(now + 2))
        assert is_cut_off(before)
        daemon.wait_connected()
        assert daemon.connected_peers()[0]["endpoint"].startswith("{}:{}".format(*later.getsockname()[:2]))
        for connection in (before, slow, later):
            connection.close()


@pytest.mark.measures
def test_a_server_that_is_never_heard_is_called_less_and_less(sites: TwoSites) -> None:
    with sites.a.namespace.entered():
        deaf = socket.create_server((sites.a.wan_ipv4, PROFILE.port))
    with deaf, running(calling(sites, "portable")) as daemon:
        deaf.settimeout(1)
        calls, deadline = 0, time.monotonic() + 4
        while time.monotonic() < deadline:
            try:
                deaf.accept()[0].close()
                calls += 1
            except TimeoutError:
                pass
        assert calls <= 10
        at_least(calls, 2, "calls in 4 s")
        assert daemon.tunnel()["state"] in ("connecting", "waiting", "connected")


@pytest.mark.parametrize("build", BUILDS)
def test_own_packets_that_come_back_take_no_place_where_the_key_has_no_direction(
    sites: TwoSites, build: str
) -> None:
    """In a connection of their own, before and after a restart, and in the peer's."""
    hand, now = Hand(sites, direction=None), int(time.time())
    with running(waiting(sites, build, direction=None)) as daemon:
        # The peer's clock is behind: all of ours seems newer than what it sends.
        peer = hand.call(hand.packet(now - 1000))
        daemon.wait_connected()
        sites.a.host.reaches("10.99.0.99")
        peer.settimeout(5 * PATIENCE)
        ours = peer.recv(1 << 16)
        length = 2 + int.from_bytes(ours[:2], "big")
        assert len(ours) >= length
        assert is_cut_off(hand.call(ours[:length]))
        assert len(daemon.connected_peers()) == 1
        peer.sendall(ours[:length])
        wait_for(lambda: daemon.drops().get("receive reflected"), "the packet to be known", 5)
        assert daemon.tunnel()["control_drops"]["receive"]["reflected"] == 1
        daemon.stop()
        peer.close()
        daemon.start()
        assert is_cut_off(hand.call(ours[:length]))
        assert daemon.tunnel()["control_drops"]["receive"]["reflected"] == 1
        again = hand.call(hand.packet(now - 900))
        daemon.wait_connected()
        again.close()
