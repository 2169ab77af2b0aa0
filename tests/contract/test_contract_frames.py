"""Contract: frames cross unchanged, sealed as docs/protocol/data.md says."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from bridged.dataplane.contract import FrameKind
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.occ import PING
from bridged.protocol.role import Role
from bridged.units import KeyId, PeerHandle
from tests.contract.dataplane_rig import BROADCAST, Rig, frame, station, until

A, B = "02:00:5e:00:00:01", "02:00:5e:00:00:02"
INNER = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(b"payload")
SHAPES = {
    "arp-padded": bytes(Ether(src=A, dst=B) / ARP(psrc="10.0.0.1", pdst="10.0.0.2")).ljust(60, b"\0"),
    "padding-not-zero": bytes(Ether(src=A, dst=B) / ARP(psrc="10.0.0.1", pdst="10.0.0.2")).ljust(60, b"\x5a"),
    "vlan": bytes(Ether(src=A, dst=B) / Dot1Q(vlan=42) / INNER),
    "vlan-priority-drop-eligible": bytes(Ether(src=A, dst=B) / Dot1Q(vlan=7, prio=5, dei=1) / INNER),
    "priority-tag": bytes(Ether(src=A, dst=B) / Dot1Q(vlan=0, prio=6) / INNER),
    "qinq": bytes(Ether(src=A, dst=B) / Dot1AD(vlan=100) / Dot1Q(vlan=200) / INNER),
    "ipx-802.3": station(2) + station(1) + b"\x00\x30" + b"\xff\xff" + b"i" * 46,
    "unknown-ethertype": station(2) + station(1) + b"\xbe\xef" + bytes(range(256)),
    "profinet": bytes.fromhex("010ecf000000") + station(1) + b"\x88\x92" + b"p" * 46,
    "lldp": bytes.fromhex("0180c200000e") + station(1) + b"\x88\xcc" + b"l" * 46,
    "least": station(2) + station(1) + b"\x88\xb5",
    "largest": station(2) + station(1) + b"\x88\xb5" + bytes(index % 251 for index in range(1500)),
    "largest-tagged": station(2) + station(1) + b"\x81\x00\x00\x07\x88\xb5" + bytes(1500),
    "begins-nearly-as-a-ping": PING[:15] + b"\x49\x08\x00" + bytes(44),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("vnet", [0, 10, 12])
def test_a_frame_of_any_shape_crosses_octet_for_octet(
    make_rig: Callable[..., Rig], shape: str, vnet: int
) -> None:
    rig = make_rig(vnet=vnet)
    peer = rig.peer(1)
    rig.put(SHAPES[shape])
    assert peer.payloads() == [SHAPES[shape]]
    back = SHAPES[shape][:6] + station(9) + SHAPES[shape][12:]
    peer.send(back)
    assert rig.frames() == [back]


@pytest.mark.parametrize("cipher", list(Cipher))
@pytest.mark.parametrize("is_v2", [True, False])
def test_both_packet_formats_and_every_cipher_are_those_of_the_reference(
    rig: Rig, cipher: Cipher, is_v2: bool
) -> None:
    peer = rig.peer(5, cipher, is_v2=is_v2)
    frames = [frame(1, 2, bytes([index]) * (100 * index + 1)) for index in range(12)]
    rig.put(*frames)
    packets = peer.datagrams(len(frames))
    opened = [peer.open(packet) for packet in packets]
    assert [item.payload for item in opened] == frames
    assert [item.packet_id for item in opened] == list(range(1, 13))
    assert all(item.header.peer_id == (peer.wire_id if is_v2 else None) for item in opened)
    peer.send(*(frame(2, 1, bytes([index])) for index in range(12)))
    assert rig.frames(12) == [frame(2, 1, bytes([index])) for index in range(12)]


def test_many_frames_in_a_row_keep_their_order_both_ways(rig: Rig) -> None:
    peer = rig.peer(1)
    out = [frame(1, 2, index.to_bytes(2, "big") + bytes(index * 37 % 900)) for index in range(400)]
    for start in range(0, 400, 40):
        rig.put(*out[start : start + 40])
        assert peer.payloads(40) == out[start : start + 40]
    back = [frame(2, 1, index.to_bytes(2, "big") + bytes(index * 53 % 900)) for index in range(400)]
    for start in range(0, 400, 40):
        peer.send(*back[start : start + 40])
        assert rig.frames(40) == back[start : start + 40]


def test_a_batch_of_segments_is_taken_apart(rig: Rig) -> None:
    peer = rig.peer(1)
    frames = [frame(2, 1, index.to_bytes(2, "big") + bytes(1000)) for index in range(30)] + [
        frame(2, 1, b"end")
    ]
    peer.send_batch([peer.seal(item) for item in frames])
    assert rig.frames(31) == frames


def test_a_short_frame_is_dropped_and_counted_in_both_directions(rig: Rig) -> None:
    peer = rig.peer(1)
    peer.send(b"thirteen-octe")
    rig.dropped("receive", "short_frame")
    rig.put(b"thirteen-octe")
    rig.dropped("transmit", "short_frame")
    peer.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)]
    assert peer.is_quiet()


def test_without_a_peer_or_without_a_key_in_use_frames_are_dropped_and_counted(rig: Rig) -> None:
    rig.put(frame(1, 2))
    rig.dropped("transmit", "no_peer")
    peer = rig.peer(1, with_key=False)
    rig.put(frame(1, 2), frame(1, 3))
    rig.dropped("transmit", "no_peer", 3)
    rig.plane.install_key(peer.handle, peer.key(Role.SERVER))
    peer.send(frame(2, 1))
    assert rig.frames() == [frame(2, 1)], "a key is good for receiving before it is used for sending"
    rig.put(frame(1, 2))
    rig.dropped("transmit", "no_peer", 4)
    rig.plane.use_key(peer.handle, KeyId(0))
    rig.put(frame(1, 2))
    assert peer.payloads() == [frame(1, 2)]
    rig.plane.remove_key(peer.handle, KeyId(0))
    rig.put(frame(1, 2))
    rig.dropped("transmit", "no_key")


def test_frames_are_counted_by_direction_and_kind(rig: Rig) -> None:
    peer = rig.peer(1)
    multicast = bytes.fromhex("01005e000001")
    rig.put(frame(1, 2), frame(1, BROADCAST), frame(1, multicast, bytes(200)))
    packets = peer.datagrams(3)
    peer.send(frame(2, 1), frame(2, 3), frame(2, BROADCAST), frame(2, multicast))
    rig.frames(4)
    rig.put(frame(1, 2, b"known now"))
    packets += peer.datagrams()

    def figures() -> object:
        return rig.snapshot().peers[0].counters

    until(lambda: rig.snapshot().peers[0].counters.frames["transmit", "unicast"] == 1, str(figures()))
    counters = rig.snapshot().peers[0].counters
    for kind in get_args(FrameKind):
        assert counters.frames["transmit", kind] == counters.frames["receive", kind] == 1, kind
    assert counters.bytes["transmit", "multicast"] == 214
    assert counters.bytes["receive", "broadcast"] == 60
    assert counters.wire_datagrams == {"transmit": 4, "receive": 4}
    assert counters.wire_bytes["transmit"] == sum(map(len, packets))
    assert counters.wire_bytes["receive"] == 4 * (60 + 24)


def test_a_removed_peer_gives_its_last_figures_and_is_forgotten(rig: Rig) -> None:
    peer = rig.peer(1)
    peer.send(frame(2, 1))
    rig.frames()
    last = rig.plane.remove_peer(peer.handle)
    assert last.handle == PeerHandle(1)
    assert last.counters.frames["receive", "unknown_unicast"] == 1
    assert last.fdb_entries == 1
    assert last.last_seen is not None
    assert rig.snapshot().peers == ()
    assert rig.plane.fdb() == []
    peer.send(frame(2, 1))
    rig.dropped("receive", "unknown_peer_id")
