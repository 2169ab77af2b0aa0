"""Contract: hundreds of peers on one data plane, each of which gets what is meant for it, once."""

from __future__ import annotations

import random
import select

from tests.contract.dataplane_rig import BROADCAST, QUIET_SECONDS, Rig, frame

PEERS = 300
LAN = 1
FIRST = 1000


def test_floods_reach_each_of_300_peers_once_and_answers_the_right_one_alone(rig: Rig) -> None:
    peers = [rig.peer(number) for number in range(1, PEERS + 1)]
    flood = frame(LAN, BROADCAST)
    rig.put(flood)
    for peer in peers:
        assert peer.payloads() == [flood]
    for peer in peers:
        said = frame(FIRST + peer.number, LAN)
        peer.send(said)
        assert rig.frames() == [said]
    homes = {entry.station.mac: entry.handle for entry in rig.plane.fdb()}
    assert len(homes) == PEERS + 1
    answers = {peer: frame(LAN, FIRST + peer.number) for peer in peers}
    assert all(homes[answer[:6]] == peer.handle for peer, answer in answers.items())
    rig.put(*random.Random(3).sample(list(answers.values()), PEERS))
    for peer, answer in answers.items():
        # A flood that came twice would come first.
        assert peer.payloads() == [answer]
    assert select.select([rig.tap, *(peer.socket for peer in peers)], [], [], QUIET_SECONDS)[0] == []
    assert rig.snapshot().drops == {}
