"""Verdicts of the policy stage: what they are remembered for, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridged.addresses import Endpoint
from bridged.dataplane.contract import PeerSettings, Station
from bridged.dataplane.portable.policy.link_layer import create_link_layer
from bridged.dataplane.portable.policy.verdicts import PEER_VERDICTS, TAP_VERDICTS, Verdicts
from bridged.dataplane.portable.tables.fdb import Fdb
from bridged.dataplane.portable.tables.peers import Peer, PeerTable
from bridged.dataplane.portable.transport.seam import Path
from bridged.protocol.packets.occ import PING
from bridged.units import MonotonicSeconds, PeerHandle, Seconds

NOWHERE: Any = None
"""What carries the packets of a peer that gets none."""

AGEING = 10.0


def mac(number: int) -> bytes:
    return b"\2\0" + number.to_bytes(4, "big")


def addresses(source: int, destination: int) -> bytes:
    return mac(destination) + mac(source)


class World:
    def __init__(self) -> None:
        self.table = PeerTable()
        self.fdb = Fdb(
            capacity=10_000, addresses_per_peer=5000, ageing=Seconds(AGEING), move_hold=Seconds(0.1)
        )
        layer = create_link_layer(self.fdb, self.table, lambda event: None, forward_between_peers=True)
        self.verdicts = Verdicts(layer)
        self.peers = [self.add(number) for number in (1, 2)]

    def add(self, number: int) -> Peer:
        endpoint = Endpoint("192.0.2.1", number)
        settings = PeerSettings(PeerHandle(number), f"site-{number}", endpoint, None, None)
        peer = Peer(settings, Path((endpoint.host, endpoint.port), NOWHERE), 0.0)
        self.table.add(peer)
        return peer


@pytest.fixture
def world() -> World:
    return World()


def test_a_verdict_is_judged_once_for_a_port_and_a_pair_of_addresses(world: World) -> None:
    first = world.verdicts.judge(None, addresses(1, 2), 0.0)
    assert world.verdicts.judge(None, addresses(1, 2), 1.0) is first
    other = world.verdicts.judge(world.peers[0], addresses(3, 1), 1.0)
    assert other is not first and other.only_to_tap


CHANGES: dict[str, Callable[[World], object]] = {
    "a station was learned": lambda world: world.fdb.learn(
        Station(0, mac(9)), PeerHandle(1), MonotonicSeconds(0)
    ),
    "a station was installed": lambda world: world.fdb.install(
        Station(0, mac(2)), PeerHandle(2), MonotonicSeconds(0), is_static=True
    ),
    "a station was removed": lambda world: world.fdb.remove(Station(0, mac(1))),
    "the peers changed": lambda world: world.verdicts.forget(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_verdict_ends_when_what_it_rests_on_changes(world: World, change: str) -> None:
    first = world.verdicts.judge(None, addresses(1, 2), 0.0)
    CHANGES[change](world)
    assert world.verdicts.judge(None, addresses(1, 2), 0.0) is not first


def test_a_verdict_ends_when_its_target_ages_although_its_source_speaks(world: World) -> None:
    world.verdicts.judge(world.peers[0], addresses(2, 1), 0.0)
    to_peer = world.verdicts.judge(None, addresses(1, 2), 0.0)
    assert to_peer.only is world.peers[0]
    for moment in range(1, 11):
        assert world.verdicts.judge(None, addresses(1, 2), float(moment)) is to_peer
    flood = world.verdicts.judge(None, addresses(1, 2), AGEING + 0.5)
    assert flood.peers == tuple(world.peers)


def test_a_verdict_for_a_static_target_does_not_age(world: World) -> None:
    world.fdb.install(Station(0, mac(2)), PeerHandle(2), MonotonicSeconds(0), is_static=True)
    first = world.verdicts.judge(None, addresses(1, 2), 0.0)
    for moment in range(5, 100, 5):
        assert world.verdicts.judge(None, addresses(1, 2), float(moment)) is first
    assert first.only is world.peers[1]


def test_what_was_refused_or_may_be_housekeeping_is_judged_each_time(world: World) -> None:
    refused = b"\xff" * 6 + b"\3\0\0\0\0\1"
    assert world.verdicts.judge(None, refused, 0.0).drop == "source_multicast"
    world.verdicts.judge(world.peers[0], PING[:12], 0.0)
    assert refused not in world.verdicts.of_tap and not world.peers[0].verdicts


def test_the_number_of_remembered_verdicts_is_bounded(world: World) -> None:
    world.verdicts.judge(None, addresses(1, 2), 0.0)
    for number in range(TAP_VERDICTS + 10):
        world.verdicts.judge(None, addresses(1, 100 + number), 0.0)
        assert len(world.verdicts.of_tap) <= TAP_VERDICTS
        world.verdicts.judge(world.peers[0], addresses(3, 100 + number), 0.0)
        assert len(world.peers[0].verdicts) <= PEER_VERDICTS
