"""Contract: frames from peer to peer arrive byte for byte and in order, whatever else a batch carries."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from bridged.protocol.keys.cipher import Cipher
from tests.contract.dataplane_rig import BROADCAST, HandPeer, Rig, frame, until

Make = Callable[..., Rig]

PEERS = 5


def meet(rig: Rig, peers: list[HandPeer]) -> None:
    """Have station 10 + n known behind peer n."""
    for peer in peers:
        peer.send(frame(10 + peer.number, BROADCAST))
        rig.frames()
        for other in peers:
            if other is not peer:
                other.payloads()


def numbered(source: HandPeer, target: HandPeer | None, number: int, octets: int) -> bytes:
    """Frame `number` of a flow; without a target it goes to everybody."""
    destination = BROADCAST if target is None else 10 + target.number
    text = bytes([source.number]) + number.to_bytes(4, "big")
    return frame(10 + source.number, destination, text).ljust(octets, bytes([number % 251]))


def flow(source: HandPeer, frames: list[bytes]) -> list[bytes]:
    """Those of one source, in their order."""
    address = frame(10 + source.number, BROADCAST)[6:12]
    return [item for item in frames if item[6:12] == address]


@pytest.mark.parametrize("cipher", [Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305])
def test_runs_between_all_pairs_arrive_in_order_and_octet_for_octet(rig: Rig, cipher: Cipher) -> None:
    peers = [rig.peer(number, cipher) for number in range(1, PEERS + 1)]
    meet(rig, peers)
    sent: dict[tuple[int, int], list[bytes]] = {}
    for turn in range(4):
        for source, target in itertools.permutations(peers, 2):
            frames = [numbered(source, target, 100 * turn + number, 1400) for number in range(20)]
            sent.setdefault((source.number, target.number), []).extend(frames)
            source.send_batch([source.seal(item) for item in frames])
    for target in peers:
        arrived = target.payloads(4 * 20 * (PEERS - 1))
        for source in peers:
            assert flow(source, arrived) == sent.get((source.number, target.number), [])
        assert target.is_quiet()
    assert rig.snapshot().drops == {}


def test_mixed_sizes_targets_and_floods_keep_the_order_of_each_flow(rig: Rig) -> None:
    choose = random.Random(5)
    peers = [rig.peer(number, is_v2=number != 3) for number in range(1, PEERS + 1)]
    meet(rig, peers)
    wanted: dict[int, list[bytes]] = {peer.number: [] for peer in peers}
    to_tap: list[bytes] = []
    for number in range(400):
        source = choose.choice(peers)
        target = choose.choice([*(peer for peer in peers if peer is not source), None])
        item = numbered(source, target, number, choose.choice([60, 60, 60, 300, 1400, 1514]))
        for other in peers if target is None else [target]:
            if other is not source:
                wanted[other.number].append(item)
        if target is None:
            to_tap.append(item)
        source.send(item)
    for peer in peers:
        arrived = peer.payloads(len(wanted[peer.number]))
        for source in peers:
            assert flow(source, arrived) == flow(source, wanted[peer.number])
        assert peer.is_quiet()
    arrived = rig.frames(len(to_tap))
    assert all(flow(source, arrived) == flow(source, to_tap) for source in peers)
    assert rig.snapshot().drops == {}


def test_a_batch_for_several_targets_is_taken_apart_and_each_part_goes_in_order(rig: Rig) -> None:
    source, *targets = [rig.peer(number) for number in range(1, PEERS + 1)]
    meet(rig, [source, *targets])
    frames = [numbered(source, targets[number % len(targets)], number, 1000) for number in range(60)]
    source.send_batch([source.seal(item) for item in frames])
    for first, target in enumerate(targets):
        assert target.payloads(15) == frames[first :: len(targets)]
        assert target.is_quiet()


def test_a_peer_that_goes_takes_nobody_elses_frames_along(rig: Rig) -> None:
    peers = [rig.peer(number) for number in range(1, PEERS + 1)]
    source, gone, *others = peers
    meet(rig, peers)
    for number in range(3):
        rig.plane.remove_key(gone.handle, gone.key_id)
        frames = [numbered(source, target, number, 500) for target in [gone, *others] for _ in range(5)]
        source.send_batch([source.seal(item) for item in frames])
        for first, target in enumerate(others, 1):
            assert target.payloads(5) == frames[5 * first : 5 * first + 5]
    assert gone.is_quiet()
    assert rig.drops("transmit", "no_key") == 15


def test_a_run_of_frames_leaves_as_a_run_whatever_mtu_was_told(make_rig: Make) -> None:
    """The configured MTU is smaller than the datagrams. The link's, which the kernel uses, is not."""
    rig = make_rig(wan_mtu=1400)
    first, second = rig.peer(1), rig.peer(2)
    meet(rig, [first, second])
    frames = [numbered(first, second, number, 1448) for number in range(40)]

    def sends() -> tuple[int, int]:
        sizes = rig.snapshot().histograms["segments_per_send"]
        return sum(sizes.counts), int(sizes.total)

    calls, datagrams = until(lambda: sends() if sends()[1] == 2 else None, "the floods to be counted")
    first.send_batch([first.seal(item) for item in frames])
    assert second.payloads(40) == frames
    until(lambda: sends()[1] == datagrams + 40, "the run to be counted")
    assert sends()[0] == calls + 1
