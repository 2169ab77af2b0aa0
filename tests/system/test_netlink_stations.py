"""Addresses that are taken, and stations that a reflecting port cannot move."""

from __future__ import annotations

import errno
import socket
import time

import pytest
from netlink_namespace import cable, in_namespace, ip, link, shell, show, tap

from bridged.addresses import MacAddress
from bridged.errors import NetlinkError
from bridged.netlink import pin_station, set_link, taken_addresses, unpin_station

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
    time.sleep(0.1)


@in_namespace
def test_a_pinned_station_does_not_move_when_another_port_reflects_its_frames() -> None:
    bridge_of_two()
    send("eth1", STATION)
    assert port_of(STATION) == "eth1"
    send("eth2", STATION)
    assert port_of(STATION) == "eth2", "unpinned, the reflection does move it"
    pin_station(STATION, "eth1")
    pin_station(STATION, "eth1")
    send("eth2", STATION)
    assert port_of(STATION) == "eth1"
    unpin_station(STATION, "eth1")
    unpin_station(STATION, "eth1")
    assert port_of(STATION) is None
    send("eth2", STATION)
    assert port_of(STATION) == "eth2"


@in_namespace
def test_pinning_to_what_is_no_port_is_refused() -> None:
    cable("eth1")
    with pytest.raises(NetlinkError) as refusal:
        pin_station(STATION, "eth1")
    assert refusal.value.link == "eth1"
    with pytest.raises(NetlinkError) as refusal:
        pin_station(STATION, "gone0")
    assert refusal.value.number == errno.ENODEV
    unpin_station(STATION, "gone0")


@in_namespace
def test_links_stations_and_neighbours_are_taken_addresses() -> None:
    bridge_of_two()
    ip(
        "neigh add 192.0.2.9 lladdr 02:bb:00:00:00:01 dev eth1-x",
        "neigh add 2001:db8::9 lladdr 02:bb:00:00:00:02 dev eth1-x nud stale",
        "neigh add 192.0.2.10 dev eth1-x nud failed",
    )
    send("eth1", STATION)
    assert port_of(STATION) == "eth1"
    taken = taken_addresses()
    expected = {STATION, MacAddress.parse("02:bb:00:00:00:01"), MacAddress.parse("02:bb:00:00:00:02")}
    expected |= {MacAddress.parse(entry["address"]) for entry in show("link show") if entry["ifname"] != "lo"}
    assert taken == expected


@in_namespace
def test_a_link_is_set_up_and_sized() -> None:
    tap("tap0")
    set_link("tap0", up=True, mtu=1400, queue_frames=4096)
    found = link("tap0")
    assert found is not None
    assert ("UP" in found["flags"], found["mtu"], found["txqlen"]) == (True, 1400, 4096)
    with pytest.raises(NetlinkError) as refusal:
        set_link("tap0", queue_frames=100, mtu=10)
    assert refusal.value.code == "einval"
    found = link("tap0")
    assert found is not None and found["txqlen"] == 4096 and found["mtu"] == 1400
    with pytest.raises(NetlinkError) as refusal:
        set_link("gone0", up=True)
    assert refusal.value.code == "enodev"
