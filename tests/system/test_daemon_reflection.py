"""A LAN port that sends our own frames back moves no station, neither in our FDB nor in the kernel's."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from functools import partial

import pytest

from bridged.catalogue.settings import Tuning
from tests.lab import HOST_PORT, LAN_PORT, Bridged, Host, Lab, Site, TwoSites, bridged_pair, wait_for
from tests.lab.bounds import at_most
from tests.lab.frames import open_capture, received_frames, send_frames
from tests.lab.reflector import reflecting
from tests.system.daemon_lab import pinging, stop_all

pytestmark = [pytest.mark.root, pytest.mark.measures]
HOLD_SECONDS = Tuning().move_hold


@pytest.fixture
def joined() -> Iterator[tuple[TwoSites, Bridged, Bridged]]:
    """New for each test: a daemon remembers for minutes where a station was and that it was reflected."""
    with Lab("reflect") as lab:
        sites = TwoSites(lab)
        server, client = bridged_pair(sites.a, sites.b)
        sites.b.host.ping(sites.a.host.ipv4)
        yield sites, server, client
        stop_all(client, server)


def test_reflected_frames_cost_two_pings_at_most_and_move_nothing(
    joined: tuple[TwoSites, Bridged, Bridged],
) -> None:
    sites, server, _ = joined
    near, far = sites.a.host, sites.b.host
    far.forget_neighbours()
    conflicts = server.metric("bridged_mac_conflicts_total", tunnel="lab")
    moved = server.metric("bridged_fdb_changes_total", change="moved")
    with reflecting(near, far.mac) as reflector, pinging(far, near.ipv4, 0.02) as pings:
        pings.wait_for_answers(100)
        assert reflector.reflected > 100
        assert _kernel_port(sites.a, far.mac) == "tap0"
        assert server.stations()[far.mac] == "client"
        pings.stop()
    at_most(pings.lost(), 2, "reflections", "pings")
    assert server.metric("bridged_mac_conflicts_total", tunnel="lab") > conflicts
    assert server.metric("bridged_fdb_changes_total", change="moved") == moved
    assert server.log.count("station_reflected") >= 1


def test_reflected_broadcasts_are_not_sent_back_to_the_peer_and_are_counted(
    joined: tuple[TwoSites, Bridged, Bridged],
) -> None:
    sites, server, _ = joined
    near, far = sites.a.host, sites.b.host
    source = bytes.fromhex(far.mac.replace(":", ""))
    frames = [b"\xff" * 6 + source + b"\x88\xb6" + struct.pack("!H", number) * 30 for number in range(20)]
    before = server.metric("bridged_drops_total", reason="loop_guard")
    with open_capture(far) as returned, reflecting(near, far.mac) as reflector:
        began = time.monotonic()
        send_frames(far, frames)
        wait_for(lambda: reflector.reflected >= len(frames), "all frames to be reflected")
        # A frame that is reflected later may come from a station that moved.
        at_most(time.monotonic() - began, HOLD_SECONDS, "reflecting all frames")
        # The far host's own discovery may be among what was reflected.
        dropped = partial(server.metric, "bridged_drops_total", reason="loop_guard")
        wait_for(lambda: dropped() - before >= len(frames), "all of them to be dropped")
        # This one takes the way that they would take.
        last = b"\xff" * 6 + bytes.fromhex(near.mac.replace(":", "")) + b"\x88\xb6" + b"behind them" * 6
        send_frames(near, [last])
        seen: list[bytes] = []
        wait_for(lambda: seen.extend(received_frames(returned)) or last in seen, "what was sent behind them")
        assert not set(frames) & set(seen)


def test_station_that_really_moves_to_the_lan_is_found_there(
    joined: tuple[TwoSites, Bridged, Bridged],
) -> None:
    """Pinned by reflections a moment ago, the station is plugged in at the other site."""
    sites, server, _ = joined
    near, far = sites.a.host, sites.b.host
    with reflecting(near, far.mac), pinging(far, near.ipv4, 0.02) as pings:
        pings.wait_for_answers(30)
    sites.b.namespace.ip("link", "set", LAN_PORT, "down")
    roaming = "10.99.0.77"
    near.namespace.ip("link", "add", "roam0", "link", HOST_PORT, "address", far.mac, "type", "macvlan")
    near.namespace.ip("link", "set", "roam0", "up")
    near.namespace.ip("addr", "add", f"{roaming}/32", "dev", "roam0")
    sites.a.namespace.ip("addr", "add", "10.99.0.250/24", "dev", "br0")
    try:
        _announce(near, far.mac, roaming)

        def at_lan() -> bool:
            _announce(near, far.mac, roaming)
            return _kernel_port(sites.a, far.mac) == LAN_PORT

        wait_for(at_lan, "the kernel's bridge to learn the new place", 5.0, 0.2)
        assert server.stations()[far.mac] is None
    finally:
        near.namespace.ip("link", "del", "roam0")
        sites.b.namespace.ip("link", "set", LAN_PORT, "up")


def _announce(host: Host, mac: str, address: str) -> None:
    """A gratuitous ARP, as a station sends it when it is plugged in."""
    source = bytes.fromhex(mac.replace(":", ""))
    ip = socket.inet_aton(address)
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + source + ip + bytes(6) + ip
    send_frames(host, [b"\xff" * 6 + source + b"\x08\x06" + arp + bytes(18)])


def _kernel_port(site: Site, mac: str) -> str:
    """Behind which port the kernel's bridge believes a station to be; empty where it does not know."""
    for entry in json.loads(site.namespace.run("bridge", "-j", "fdb", "show", "br", "br0")):
        if entry["mac"] == mac and entry.get("master") == "br0":
            return str(entry["ifname"])
    return ""
