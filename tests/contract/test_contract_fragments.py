"""Contract: with `fragment`, what needs a larger packet is cut, and joined at the other end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from bridged.dataplane.contract import OccReceived
from bridged.errors import DataplaneError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.fragments import HEADER_OCTETS, WAITING_MOST, WHOLE, Reassembly, cut
from bridged.protocol.packets.framing import UNWRAPPERS, WRAPPERS, Framing
from bridged.protocol.packets.occ import OCC_EXIT, PING
from bridged.units import PeerHandle
from tests.contract.dataplane_rig import BROADCAST, HandPeer, Rig, frame, station, until
from tests.contract.tcp_frames import super_frame

Make = Callable[..., Rig]

PACKET = 1000
LARGE = [frame(1, 2, bytes([number]) * (959 + number)) for number in range(16)]
"""Around the size from which on frames are cut, and larger ones."""
LARGER = [frame(1, 2, bytes([number]) * 1500) for number in range(5)]


def joined(peer: HandPeer, count: int, framing: Framing = "none") -> list[bytes]:
    """The next `count` frames that a peer gets, out of packets of at most PACKET bytes."""
    reassembly = Reassembly()
    found: list[bytes] = []
    while len(found) < count:
        (packet,) = peer.datagrams()
        assert len(packet) <= PACKET
        payload = reassembly.take(peer.open(packet).payload, 0)
        if payload is not None:
            found.append(payload if framing == "none" else UNWRAPPERS[framing](payload))
    return found


def send(peer: HandPeer, frames: list[bytes], framing: Framing = "none", *, most: int = 972) -> None:
    for number, item in enumerate(frames):
        payload = item if framing == "none" else WRAPPERS[framing](item)
        peer.send(*cut(payload, most, number & 255))


def counted(rig: Rig) -> tuple[int, int]:
    """Frames and bytes of the only peer."""
    counters = rig.snapshot().peers[0].counters
    return sum(counters.frames.values()), sum(counters.bytes.values())


@pytest.mark.parametrize("framing", ["none", "comp-lzo", "stub", "stub-v2"])
@pytest.mark.parametrize(("vnet", "is_v2"), [(0, True), (12, True), (0, False)])
def test_frames_of_all_sizes_cross_both_ways(
    make_rig: Make, framing: Framing, vnet: int, is_v2: bool
) -> None:
    rig = make_rig(vnet=vnet)
    peer = rig.peer(5, framing=framing, fragment=PACKET, is_v2=is_v2)
    frames = [frame(1, 2), *LARGE, *LARGER, frame(1, 2)]
    for number in range(0, len(frames), 6):
        rig.put(*frames[number : number + 6])
        assert joined(peer, len(frames[number : number + 6]), framing) == frames[number : number + 6]
    back = [item[:6] + station(9) + item[12:] for item in frames]
    send(peer, back, framing)
    assert rig.frames(len(back)) == back
    expected = 2 * len(frames), 2 * sum(map(len, frames))
    # Frames are counted once they are sent: the last ones may be here before.
    until(lambda: counted(rig) == expected, f"{expected} frames and bytes are counted")
    assert rig.snapshot().drops == {}


@pytest.mark.parametrize(
    ("cipher", "is_epoch"),
    [(Cipher.AES_256_CBC, False), (Cipher.CHACHA20_POLY1305, False), (Cipher.AES_256_GCM, True)],
)
def test_packets_are_not_larger_whatever_the_cipher_adds(rig: Rig, cipher: Cipher, is_epoch: bool) -> None:
    peer = rig.peer(1, cipher, fragment=PACKET, is_epoch=is_epoch)
    rig.put(*LARGE)
    assert joined(peer, len(LARGE)) == LARGE


def test_a_whole_frame_has_a_header_of_zeros_and_parts_are_those_of_openvpn(rig: Rig) -> None:
    peer = rig.peer(1, fragment=PACKET)
    rig.put(frame(1, 2), LARGER[0])
    first, *parts = peer.payloads(3)
    assert first == WHOLE + frame(1, 2)
    sequence = int.from_bytes(parts[0][:HEADER_OCTETS], "big") >> 2 & 255
    assert parts == cut(LARGER[0], 972, sequence)
    rig.put(LARGER[1])
    assert peer.payloads(2) == cut(LARGER[1], 972, sequence + 1 & 255)


def test_floods_and_relays_reach_peers_with_and_without(rig: Rig) -> None:
    plain, one, two = rig.peer(1), rig.peer(2, fragment=PACKET), rig.peer(3, framing="stub", fragment=PACKET)
    for source, target in ((10, BROADCAST), (10, 99)):
        frames = [frame(source, target, bytes([number]) * 70 * number) for number in range(20)]
        plain.send_batch([plain.seal(frames[0])])
        plain.send(*frames[1:])
        assert rig.frames(20) == frames
        assert joined(one, 20) == frames
        assert joined(two, 20, "stub") == frames
    from_lan = [frame(11, BROADCAST, bytes([number]) * 1500) for number in range(9)]
    rig.put(*from_lan)
    assert plain.payloads(9) == from_lan
    assert joined(one, 9) == joined(two, 9, "stub") == from_lan
    lone = [frame(20, 10, bytes([number]) * 1400) for number in range(5)]
    send(one, lone)
    assert plain.payloads(5) == lone
    assert rig.snapshot().drops == {}


@pytest.mark.parametrize("network", ["IPv4", "IPv6"])
def test_super_frames_are_cut_to_segments_that_need_one_packet_each(
    make_rig: Make, build: str, network: str
) -> None:
    rig = make_rig(vnet=12, offloads=("csum", "tso4", "tso6"))
    peer = rig.peer(1, fragment=PACKET)
    header, octets = super_frame("untagged", network, 30_000, 1400)
    rig.put(octets, header=header)
    text = b""
    while len(text) < 30_000:
        (item,) = joined(peer, 1)
        assert build == "portable" or len(item) <= 972
        text += bytes(Ether(item)[TCP].payload)
    assert text == bytes(Ether(octets)[TCP].payload)


def test_parts_are_joined_in_any_order_and_frames_keep_theirs(rig: Rig) -> None:
    peer = rig.peer(1, fragment=PACKET)
    large = [frame(9, 2, bytes([number]) * 3000 + b"x") for number in range(3)]
    first, second, third = (cut(item[:1500], 500, number) for number, item in enumerate(large))
    small = frame(9, 2, b"between")
    peer.send(*reversed(first), WHOLE + small, *second[1:], third[0], second[0], *third[1:], WHOLE + small)
    assert rig.frames(5) == [large[0][:1500], small, large[1][:1500], large[2][:1500], small]
    assert rig.snapshot().drops == {}


def test_parts_in_one_read_are_joined(make_rig: Make) -> None:
    rig = make_rig(mtu=2000)
    peer = rig.peer(1, fragment=PACKET)
    frames = [frame(9, 2, bytes([number]) * 1930) for number in range(10)]
    parts = [part for number, item in enumerate(frames) for part in cut(item, 972, number)]
    assert {len(part) for part in parts} == {976}
    peer.send_batch([peer.seal(part) for part in parts])
    assert rig.frames(10) == frames


def test_incomplete_frames_are_bounded_counted_and_hinder_nobody(rig: Rig) -> None:
    peer = rig.peer(1, fragment=PACKET)
    for number in range(3 * WAITING_MOST):
        peer.send(cut(LARGER[0], 972, number)[0])
    until(lambda: rig.drops("receive", "fragment_incomplete") == 2 * WAITING_MOST, "incomplete frames")
    whole = frame(9, 2, b"w" * 1400)
    peer.send(*cut(whole, 972, 200))
    assert rig.frames() == [whole]


BAD = {
    "a header of the unused kind": b"\0\0\0\3" + bytes(60),
    "a whole frame with a number": b"\0\0\4\0" + bytes(60),
    "a last part without a size": b"\0\0\0\2" + bytes(60),
    "nothing behind the header": WHOLE,
    "less than a header": b"\0\0\0",
    "a part beyond the largest frame": (2 | 31 << 10 | 0x3FFF << 15).to_bytes(4, "big") + bytes(60),
}


@pytest.mark.parametrize("what", BAD)
def test_what_no_sender_writes_is_dropped_and_counted(rig: Rig, what: str) -> None:
    peer = rig.peer(1, fragment=PACKET)
    peer.send(BAD[what], WHOLE + frame(9, 2))
    assert rig.frames() == [frame(9, 2)]
    rig.dropped("receive", "bad_fragment")


def test_pings_and_occ_messages_are_framed_as_well(rig: Rig) -> None:
    peer = rig.peer(1, fragment=PACKET, framing="comp-lzo", ping=0.05)
    assert peer.payloads(2) == [WHOLE + b"\xfa" + PING] * 2
    peer.send(WHOLE + b"\xfa" + PING, *cut(b"\xfa" + OCC_EXIT, 8, 1))
    assert rig.event(OccReceived) == OccReceived(PeerHandle(1), OCC_EXIT)
    assert rig.tap_is_quiet()
    assert rig.snapshot().drops == {}


def test_a_short_frame_is_one_without_its_headers(rig: Rig) -> None:
    peer = rig.peer(1, fragment=PACKET)
    peer.send(WHOLE + frame(9, 2)[:13], WHOLE + frame(9, 2)[:14])
    assert rig.frames() == [frame(9, 2)[:14]]
    rig.dropped("receive", "short_frame")


def test_frames_that_need_too_many_parts_go_in_larger_ones(make_rig: Make) -> None:
    rig = make_rig(mtu=9000)
    peer = rig.peer(1, fragment=256)
    jumbo = frame(1, 2, bytes(range(256)) * 35)
    rig.put(jumbo)
    payloads = peer.payloads(32)
    assert all(len(one) == len(two) for one, two in pairwise(payloads[:-1]))
    reassembly = Reassembly()
    assert [reassembly.take(payload, 0) for payload in payloads][-1] == jumbo


@pytest.mark.parametrize("fragment", [1, 255, 65536])
def test_a_size_that_is_none_is_refused(rig: Rig, fragment: int) -> None:
    with pytest.raises(DataplaneError) as error:
        rig.peer(1, fragment=fragment)
    assert error.value.code == "bad_setting"
