"""Contract: super-frames from and to the TAP, MSS fitting, checksums right and wrong.

scapy builds and checks; the coalesced write is taken apart by the kernel's rules (`segment` is held to the
kernel itself in test_contract_kernel.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bridged.catalogue import figures
from bridged.dataplane.portable.headers.segment import segment
from bridged.dataplane.portable.headers.vnet import parse_vnet
from tests.contract.dataplane_rig import HandPeer, Rig, frame, until
from tests.contract.tcp_frames import (
    LINKS,
    NETWORKS,
    A,
    B,
    datagrams,
    segments,
    sums_are_good,
    super_frame,
    syn,
)

Make = Callable[..., Rig]


def taken_apart(writes: list[bytes], vnet: int) -> list[bytes]:
    frames: list[bytes] = []
    for packet in writes:
        frames += segment(parse_vnet(packet), packet[vnet:])
    return frames


def test_a_snapshot_has_all_offloads_queues_and_histograms_of_the_table(make_rig: Make, build: str) -> None:
    snapshot = make_rig().snapshot()
    assert set(snapshot.offloads) == {offload.name for offload in figures.OFFLOADS}
    assert set(snapshot.queues) == {queue.name for queue in figures.QUEUES if build in queue.sources}
    assert set(snapshot.histograms) == {batch.name for batch in figures.BATCHES if build in batch.sources}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("vnet", [10, 12])
@pytest.mark.parametrize("size", [100, 1448, 1449, 5792, 60000])
def test_a_super_frame_from_the_tap_becomes_correct_frames(
    make_rig: Make, link: str, network: str, vnet: int, size: int
) -> None:
    rig = make_rig(vnet=vnet, offloads=("csum", "tso4", "tso6"))
    peer = rig.peer(1)
    header, octets = super_frame(link, network, size, 1448, flags="PAC")
    rig.put(octets, header=header)
    count = -(-size // 1448)
    frames = peer.payloads(count)
    assert all(sums_are_good(item) for item in frames)
    parsed = [Ether(item) for item in frames]
    assert b"".join(bytes(item[TCP].payload) for item in parsed) == octets[-size:]
    assert [item[TCP].seq for item in parsed] == [7 + 1448 * index for index in range(count)]
    assert ["P" in str(item[TCP].flags) for item in parsed] == [False] * (count - 1) + [True]
    assert ["C" in str(item[TCP].flags) for item in parsed] == [True] + [False] * (count - 1)
    if network == "IPv4":
        assert [item[IP].id for item in parsed] == list(range(100, 100 + count))
    counted = ("transmit", "unknown_unicast")
    until(lambda: rig.snapshot().peers[0].counters.frames[counted] == count, f"{count} frames counted")  # type: ignore[index]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_udp_super_frame_becomes_datagrams(make_rig: Make, network: str) -> None:
    rig = make_rig(vnet=12, offloads=("csum", "uso4", "uso6"))
    peer = rig.peer(1)
    text = bytes(at % 251 for at in range(3000))
    octets = bytearray(bytes(Ether(src=A, dst=B) / NETWORKS[network]() / UDP(sport=1, dport=2) / Raw(text)))
    start = len(octets) - 3008
    addresses = octets[start - 8 : start] if network == "IPv4" else octets[start - 32 : start]
    total = sum(struct.unpack(f"!{len(addresses) // 2}H", addresses)) + 17 + 3008
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    octets[start + 6 : start + 8] = total.to_bytes(2, "big")
    rig.put(bytes(octets), header=struct.pack("=BBHHHH", 1, 5, start + 8, 1400, start, 6))
    frames = peer.payloads(3)
    assert all(sums_are_good(item) for item in frames)
    assert [len(Ether(item)[UDP].payload) for item in frames] == [1400, 1400, 200]
    assert b"".join(bytes(Ether(item)[UDP].payload) for item in frames) == text


def test_a_checksum_left_to_us_is_completed(make_rig: Make) -> None:
    rig = make_rig(vnet=10, offloads=("csum",))
    peer = rig.peer(1)
    header, octets = super_frame("untagged", "IPv4", 333, 0)
    rig.put(octets, header=header[:1] + b"\0" + header[2:])
    assert sums_are_good(peer.payloads()[0])


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("=BBHHHH", 1, 1, 66, 0, 34, 16),
        struct.pack("=BBHHHH", 1, 1, 66, 1448, 60000, 16),
        struct.pack("=BBHHHH", 1, 3, 66, 1448, 34, 16),
        struct.pack("=BBHHHH", 1, 9, 66, 1448, 34, 16),
        struct.pack("=BBHHHH", 1, 0, 0, 0, 65535, 65535),
    ],
)
def test_a_header_that_does_not_fit_costs_only_its_frame(make_rig: Make, header: bytes) -> None:
    rig = make_rig(vnet=10, offloads=("csum", "tso4"))
    peer = rig.peer(1)
    _, octets = super_frame("untagged", "IPv4", 3000, 1448)
    rig.put(octets, header=header)
    rig.dropped("transmit", "bad_length")
    rig.put(frame(1, 2))
    assert peer.payloads() == [frame(1, 2)]


def deliver(rig: Rig, peer: HandPeer, frames: list[bytes]) -> list[bytes]:
    """Send frames in batches of equal size; returns the writes until all frames have come."""
    packets = [peer.seal(item) for item in frames]
    start = 0
    while start < len(packets):
        end = start + 1
        while end < len(packets) and len(packets[end]) == len(packets[start]) and end - start < 40:
            end += 1
        if end < len(packets) and len(packets[end]) < len(packets[start]):
            end += 1
        peer.send_batch(packets[start:end])
        start = end
    writes: list[bytes] = []
    until(
        lambda: rig.snapshot().histograms["frames_per_tap_write"].total >= len(frames),
        f"{len(frames)} frames written",
    )
    while not rig.tap_is_quiet(0.15):
        writes += rig.writes()
    return writes


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("vnet", [10, 12])
@pytest.mark.parametrize(("size", "last"), [(1448, None), (1448, 1), (1447, 500), (536, 535)])
def test_segments_of_a_flow_are_joined_and_lose_nothing(
    make_rig: Make, network: str, vnet: int, size: int, last: int | None
) -> None:
    rig = make_rig(vnet=vnet, offloads=("csum",))
    peer = rig.peer(1)
    frames = segments(network, 20, size, last=last)
    writes = deliver(rig, peer, frames)
    assert len(writes) < len(frames)
    assert taken_apart(writes, vnet) == frames
    assert rig.snapshot().offloads["coalesce"]
    assert rig.snapshot().peers[0].counters.frames["receive", "unknown_unicast"] == 20, (
        "counted before joining"
    )


@pytest.mark.parametrize(("allowed", "joined"), [("tcp4", "IPv4"), ("tcp6", "IPv6")])
@pytest.mark.parametrize("network", NETWORKS)
def test_only_the_allowed_kinds_are_joined(make_rig: Make, allowed: str, joined: str, network: str) -> None:
    rig = make_rig(vnet=10, coalesce=frozenset({allowed}))
    frames = segments(network, 20, 1448)
    writes = deliver(rig, rig.peer(1), frames)
    assert (len(writes) < len(frames)) == (network == joined)
    assert taken_apart(writes, 10) == frames
    assert rig.snapshot().offloads["coalesce"]


def test_udp_is_joined_only_where_it_is_allowed(make_rig: Make, build: str) -> None:
    """Portable never joins UDP; native does if the TAP takes it (USO) and the kind is allowed."""
    for kinds, network, is_joined in (
        ({"udp4"}, "IPv4", build == "native"),
        ({"udp6"}, "IPv6", build == "native"),
        ({"udp4", "tcp4"}, "IPv6", False),
        ({"tcp4", "tcp6"}, "IPv4", False),
    ):
        rig = make_rig(vnet=10, offloads=("csum", "uso4", "uso6"), coalesce=frozenset(kinds))
        frames = datagrams(network, 20, 1000)
        writes = deliver(rig, rig.peer(1), frames)
        assert (len(writes) < len(frames)) == is_joined, (kinds, network)
        assert taken_apart(writes, 10) == frames


def test_coalescing_can_be_switched_off(make_rig: Make) -> None:
    rig = make_rig(vnet=10, coalesce=frozenset())
    frames = segments("IPv4", 20, 1448)
    writes = deliver(rig, rig.peer(1), frames)
    assert [item[10:] for item in writes] == frames
    assert not rig.snapshot().offloads["coalesce"]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("bad", [0, 1, 7, 19])
def test_a_wrong_inner_checksum_stays_wrong_and_harms_no_neighbour(
    make_rig: Make, network: str, bad: int
) -> None:
    rig = make_rig(vnet=10)
    frames = segments(network, 20, 1448)
    frames[bad] = frames[bad][:-1] + bytes([frames[bad][-1] ^ 0x10])
    writes = deliver(rig, rig.peer(1), frames)
    assert taken_apart(writes, 10) == frames
    alone = [packet for packet in writes if packet[10:] == frames[bad]]
    assert alone == [bytes(10) + frames[bad]], "no promise about its checksum may be made"


def test_two_errors_that_cancel_out_stay_wrong(make_rig: Make) -> None:
    rig = make_rig(vnet=10)
    frames = segments("IPv4", 20, 1448)
    for index, change in ((4, 1), (5, -1)):
        octets = bytearray(frames[index])
        octets[-1] = (octets[-1] + change) & 0xFF
        frames[index] = bytes(octets)
    writes = deliver(rig, rig.peer(1), frames)
    assert taken_apart(writes, 10) == frames
    assert {bytes(10) + frames[4], bytes(10) + frames[5]} <= set(writes)


def test_two_flows_that_alternate_keep_their_order(make_rig: Make) -> None:
    rig = make_rig(vnet=10)
    first = segments("IPv4", 10, 1000)
    second = [bytes(Ether(item)) for item in segments("IPv6", 10, 980)]
    mixed = [item for pair in zip(first, second, strict=True) for item in pair]
    frames = taken_apart(deliver(rig, rig.peer(1), mixed), 10)
    assert [item for item in frames if item in first] == first
    assert [item for item in frames if item in second] == second
    assert len(frames) == 20


def test_a_pure_acknowledgement_is_not_overtaken(make_rig: Make) -> None:
    rig = make_rig(vnet=10)
    frames = segments("IPv4", 9, 1000)
    bare = bytes(Ether(src=B, dst=A) / NETWORKS["IPv4"]() / TCP(sport=1000, dport=2000, ack=5, flags="A"))
    order = [*frames[:4], bare, *frames[4:]]
    assert taken_apart(deliver(rig, rig.peer(1), order), 10) == order


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("flags", ["S", "SA"])
def test_the_mss_of_syn_segments_is_lowered_in_both_directions(
    make_rig: Make, network: str, link: str, flags: str
) -> None:
    rig = make_rig(mss_limit=1368)
    peer = rig.peer(1)
    wanted = 1368 if network == "IPv4" else 1348
    rig.put(syn(network, link, 1460, flags))
    assert peer.payloads() == [syn(network, link, wanted, flags)]
    back = Ether(syn(network, link, 1460, flags))
    back.src, back.dst = "02:00:5e:00:00:03", A
    peer.send(bytes(back))
    clamped = Ether(rig.frames()[0])
    assert dict(clamped[TCP].options)["MSS"] == wanted
    assert sums_are_good(bytes(clamped))
    assert rig.snapshot().counts["mtu_events"]["mss_clamped"] == 2


def test_sizes_that_are_told_later_hold_from_then_on(make_rig: Make) -> None:
    rig = make_rig(mss_limit=1368)
    peer = rig.peer(1)
    for limit in (1200, 0, 1368):
        rig.plane.use_sizes(1400, limit)
        rig.put(syn("IPv4", "untagged", 1460))
        assert peer.payloads() == [syn("IPv4", "untagged", limit or 1460)]


def test_the_mss_is_never_raised_and_other_segments_are_left_alone(make_rig: Make) -> None:
    rig = make_rig(mss_limit=1368)
    peer = rig.peer(1)
    for octets in (syn("IPv4", "untagged", 1300), syn("IPv4", "untagged", 1460, "A")):
        rig.put(octets)
        assert peer.payloads() == [octets]
    assert rig.snapshot().counts["mtu_events"]["mss_clamped"] == 0


def test_without_a_limit_the_mss_is_left_alone(rig: Rig) -> None:
    peer = rig.peer(1)
    rig.put(syn("IPv4", "untagged", 1460))
    assert peer.payloads() == [syn("IPv4", "untagged", 1460)]
