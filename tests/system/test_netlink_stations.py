"""Addresses that are taken, and stations that a reflecting port cannot move."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridged.addresses import MacAddress
from bridged.dataplane.contract import FdbEntry, Station, StationEvents
from bridged.errors import NetlinkError
from bridged.netlink import hold_station, release_station
from bridged.runtime.watchers.reflections import Reflections
from bridged.units import PeerHandle, Seconds
from tests.lab.bounds import at_least
from tests.lab.host_links import cable, ip, is_forwarding, plugged, shell, within
from tests.lab.namespace import in_namespace
from tests.lab.waiting import NotInTime, until, wait_for

pytestmark = pytest.mark.root

STATION = MacAddress.parse("02:aa:00:00:00:01")


def send(port: str, source: MacAddress) -> None:
    """A broadcast frame from the other end of the port's cable."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((f"{port}-x", 0))
        raw.send(b"\xff" * 6 + source.octets + b"\x88\xb5" + bytes(50))


def port_of(mac: MacAddress) -> str | None:
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        time.sleep(0.02)
    rows = [row.split() for row in shell("bridge fdb show br br0").splitlines()]
    return next((row[2] for row in rows if row[0] == str(mac)), None)


def bridge_of_two() -> None:
    cable("eth1")
    cable("eth2")
    ip("link add br0 type bridge", "link set eth1 master br0", "link set eth2 master br0", "link set br0 up")
    wait_for(lambda: is_forwarding("eth1", "eth2"), "ports to forward", interval_seconds=0.01)


@in_namespace
def test_a_held_station_does_not_move_when_another_port_reflects_its_frames() -> None:
    bridge_of_two()
    send("eth1", STATION)
    assert port_of(STATION) == "eth1"
    send("eth2", STATION)
    assert port_of(STATION) == "eth2", "released, the reflection does move it"
    hold_station(STATION, "eth1")
    hold_station(STATION, "eth1")
    send("eth2", STATION)
    assert port_of(STATION) == "eth1"
    release_station(STATION, "eth1")
    release_station(STATION, "eth1")
    assert port_of(STATION) is None
    send("eth2", STATION)
    assert port_of(STATION) == "eth2"


@in_namespace
def test_pinning_to_what_is_no_port_is_refused() -> None:
    cable("eth1")
    with pytest.raises(NetlinkError) as refusal:
        hold_station(STATION, "eth1")
    assert refusal.value.link == "eth1"
    with pytest.raises(NetlinkError) as refusal:
        hold_station(STATION, "gone0")
    assert refusal.value.number == errno.ENODEV
    release_station(STATION, "gone0")


class SpoofingPeer:
    """A tunnel whose peer sends frames with others' addresses: written into the TAP, and known to its FDB."""

    def __init__(self, device: int, address: MacAddress) -> None:
        self.tap_name = "tap0"
        self.address = address
        self.held: list[MacAddress] = []
        self.contested: list[MacAddress] = []
        self._device = device

    def spoof(self) -> None:
        os.write(self._device, b"\xff" * 6 + self.address.octets + b"\x88\xb5" + bytes(50))

    def find_station(self, address: MacAddress) -> tuple[FdbEntry, str | None] | None:
        if address != self.address:
            return None
        return FdbEntry(Station(0, address.octets), PeerHandle(1), Seconds(0.01)), "evil"

    def station_events(self, after: int) -> StationEvents:
        return StationEvents((), 0, 0)

    def note_reflection(self, address: MacAddress, port: str, peer: str) -> None:
        self.held.append(address)

    def note_contested(self, address: MacAddress, port: str, peer: str) -> None:
        self.contested.append(address)


@pytest.mark.measures
@pytest.mark.parametrize("victim", ["a LAN station", "one heard before the start", "the default gateway"])
@in_namespace
async def test_a_peer_never_gets_the_address_of_what_a_lan_port_had_first_held(victim: str) -> None:
    """The peer sends frames of it all the time; the station speaks as well, and goes on being reached."""
    cable("eth1")
    cable("eth2")
    ip("link add br0 type bridge mcast_snooping 0", "link set br0 up", "addr add 192.0.2.2/24 dev br0")
    station = MacAddress.parse("02:aa:00:00:00:77")
    with plugged("tap0") as device, open_raw("eth1-x") as at_station, open_raw("eth2-x") as at_host:
        ip(*(f"link set {port} master br0 up" for port in ("eth1", "eth2", "tap0")))
        await until(lambda: is_forwarding("eth1", "eth2", "tap0"), "ports to forward")
        peer = SpoofingPeer(device.fileno(), station)
        speak = b"\xff" * 6 + station.octets + b"\x88\xb5" + bytes(50)
        ask = station.octets + b"\x02\xbb\x00\x00\x00\x01" + b"\x88\xb5" + bytes(50)
        if victim == "one heard before the start":
            at_station.send(speak)
            await asyncio.sleep(0.1)
        if victim == "the default gateway":
            ip(f"neigh replace 192.0.2.1 lladdr {station} dev br0", "route add default via 192.0.2.1")
        reflections = Reflections()
        reflections.apply({"br0": ["eth1", "eth2"]}, {"br0": [peer]})
        reflections.start()
        try:
            if victim == "the default gateway":
                # Whoever came first: the peer is quicker.
                peer.spoof()
            else:
                at_station.send(speak)
            await asyncio.sleep(0.05)
            reached = 0
            for _ in range(10):
                peer.spoof()
                await asyncio.sleep(0.02)
                at_station.send(speak)
                await asyncio.sleep(0.02)
                drain(at_station)
                at_host.send(ask)
                reached += await arrives(at_station, ask)
            assert peer.held == [] and peer.contested == [station], "told once"
            # It spoke last.
            at_least(reached, 8, "times that it is reached")
        finally:
            reflections.close()


@in_namespace
async def test_a_station_that_a_peer_had_first_is_held_when_a_lan_port_reflects_it() -> None:
    cable("eth1")
    ip("link add br0 type bridge mcast_snooping 0", "link set br0 up")
    with plugged("tap0") as device, open_raw("eth1-x") as reflector:
        ip("link set eth1 master br0 up", "link set tap0 master br0 up")
        await until(lambda: is_forwarding("eth1", "tap0"), "ports to forward")
        peer = SpoofingPeer(device.fileno(), STATION)
        reflections = Reflections()
        reflections.apply({"br0": ["eth1"]}, {"br0": [peer]})
        reflections.start()
        try:
            peer.spoof()
            await asyncio.sleep(0.05)
            reflector.send(b"\xff" * 6 + STATION.octets + b"\x88\xb5" + bytes(50))
            await within(lambda: peer.held == [STATION], "held")
            assert peer.contested == [] and "sticky" in shell("bridge fdb show br br0")
        finally:
            reflections.close()
        assert "sticky" not in shell("bridge fdb show br br0")


@contextmanager
def open_raw(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as raw:
        raw.bind((name, 0x88B5))
        raw.setblocking(False)
        yield raw


async def arrives(raw: socket.socket, frame: bytes) -> bool:
    """Whether the frame comes within a second or so."""
    try:
        await until(lambda: frame in drain(raw), "the frame", seconds=0.5)
    except NotInTime:
        return False
    return True


def drain(raw: socket.socket) -> list[bytes]:
    frames = []
    while True:
        try:
            frames.append(raw.recv(2048))
        except BlockingIOError:
            return frames
