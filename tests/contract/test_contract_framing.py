"""Contract: compression framing around every payload, and never a compressed one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from bridged.dataplane.contract import FramingRefused, OccReceived
from bridged.errors import DataplaneError
from bridged.protocol.packets.framing import Framing
from bridged.protocol.packets.occ import OCC_EXIT, PING
from bridged.units import PeerHandle
from tests.contract.dataplane_rig import BROADCAST, HandPeer, Rig, frame, station, until
from tests.contract.tcp_frames import segments, super_frame

Make = Callable[..., Rig]

FRAMINGS: Final[tuple[Framing, ...]] = ("comp-lzo", "stub", "stub-v2")
ESCAPED = bytes.fromhex("500000000001")
"""A station whose address begins as the mark of the second version does."""


def framed(framing: Framing, payload: bytes) -> bytes:
    """As OpenVPN frames it (docs/protocol/data.md#4-2)."""
    match framing:
        case "comp-lzo":
            return b"\xfa" + payload
        case "stub":
            return b"\xfb" + payload[1:] + payload[:1]
        case "stub-v2" if payload[0] == 0x50:
            return b"\x50\x00" + payload
        case _:
            return payload


def frames_to(destination: int | bytes, count: int = 12) -> list[bytes]:
    """From 60 bytes to the largest."""
    return [
        frame(1, destination, bytes([index + 1]) * (index * 1500 // (count - 1))) for index in range(count)
    ]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("vnet", "is_v2"), [(0, True), (0, False), (12, True)])
@pytest.mark.parametrize("destination", [2, ESCAPED])
def test_frames_cross_in_their_framing_both_ways(
    make_rig: Make, framing: Framing, vnet: int, is_v2: bool, destination: int | bytes
) -> None:
    rig = make_rig(vnet=vnet)
    peer = rig.peer(5, is_v2=is_v2, framing=framing)
    frames = frames_to(destination)
    rig.put(*frames)
    assert peer.payloads(len(frames)) == [framed(framing, item) for item in frames]
    back = [item[:6] + station(9) + item[12:] for item in frames]
    peer.send(*(framed(framing, item) for item in back))
    assert rig.frames(len(back)) == back
    equal = [frame(9, destination, bytes([number]) * 1000) for number in range(20)]
    peer.send_batch([peer.seal(framed(framing, item)) for item in equal])
    assert rig.frames(len(equal)) == equal
    counted = {"receive": sum(map(len, back + equal)), "transmit": sum(map(len, frames))}
    # Frames are counted once they are sent: the last ones may be here before.
    until(lambda: octets_of_only_peer(rig) == counted, f"{counted} are counted")
    assert rig.snapshot().drops == {}


def octets_of_only_peer(rig: Rig) -> dict[str, int]:
    counted = rig.snapshot().peers[0].counters.bytes
    return {
        wanted: sum(octets for (direction, _), octets in counted.items() if direction == wanted)
        for wanted in ("receive", "transmit")
    }


@pytest.mark.parametrize("framing", FRAMINGS)
def test_floods_and_relays_between_peers_of_every_framing(rig: Rig, framing: Framing) -> None:
    peers: dict[Framing, HandPeer] = {
        kind: rig.peer(number, framing=kind) for number, kind in enumerate(("none", *FRAMINGS), 1)
    }
    source = peers.pop(framing)
    for text in (b"a", b"b" * 1400):
        for destination in (BROADCAST, ESCAPED):
            frames = [frame(10, destination, text + bytes([number])) for number in range(20)]
            source.send_batch([source.seal(framed(framing, item)) for item in frames])
            assert rig.frames(20) == frames
            for kind, peer in peers.items():
                assert peer.payloads(20) == [framed(kind, item) for item in frames], kind
            rig.put(*(frame(11, BROADCAST, text + bytes([number])) for number in range(20)))
            for kind, peer in {**peers, framing: source}.items():
                wanted = [frame(11, BROADCAST, text + bytes([number])) for number in range(20)]
                assert peer.payloads(20) == [framed(kind, item) for item in wanted], kind
    for kind, peer in peers.items():
        peer.send(framed(kind, frame(20 + peer.number, BROADCAST)))
        rig.frames()
        for other_kind, other in {**peers, framing: source}.items():
            if other is not peer:
                assert other.payloads() == [framed(other_kind, frame(20 + peer.number, BROADCAST))]
        lone = frame(10, 20 + peer.number, b"c" * 1000)
        source.send(*(framed(framing, lone) for _ in range(5)))
        assert peer.payloads(5) == [framed(kind, lone)] * 5
    assert rig.tap_is_quiet()
    assert rig.snapshot().drops == {}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("network", ["IPv4", "IPv6"])
def test_super_frames_are_cut_and_joined_inside_their_framing(
    make_rig: Make, build: str, framing: Framing, network: str
) -> None:
    path = 1000
    settings = {"wan_mtu": path} if build == "native" else {}
    rig = make_rig(vnet=12, offloads=("csum", "tso4", "tso6"), **settings)
    peer = rig.peer(1, framing=framing)
    trains = segments(network, 20, 1400)
    peer.send_batch([peer.seal(framed(framing, item)) for item in trains])
    arrived = sum(len(write) for write in joined(rig, 20 * 1400))
    assert arrived < sum(map(len, trains))
    header, octets = super_frame("untagged", network, 30_000, 1400)
    rig.put(octets, header=header)
    text = b""
    while len(text) < 30_000:
        (packet,) = peer.datagrams()
        assert build == "portable" or len(packet) <= path - 28
        text += bytes(Ether(unframed(framing, peer.open(packet).payload))[TCP].payload)
    assert text == bytes(Ether(octets)[TCP].payload)


def joined(rig: Rig, octets: int) -> list[bytes]:
    """Writes to the TAP until so many bytes of TCP have come."""
    found: list[bytes] = []
    while sum(len(Ether(write[rig.vnet :])[TCP].payload) for write in found) < octets:
        found += rig.writes()
    return found


def unframed(framing: Framing, payload: bytes) -> bytes:
    match framing:
        case "comp-lzo":
            assert payload[0] == 0xFA
            return payload[1:]
        case "stub":
            assert payload[0] == 0xFB
            return payload[-1:] + payload[1:-1]
        case _:
            return payload


@pytest.mark.parametrize("framing", FRAMINGS)
def test_pings_and_occ_messages_are_framed_as_well(rig: Rig, framing: Framing) -> None:
    peer = rig.peer(1, framing=framing, ping=0.05)
    assert peer.payloads(2) == [framed(framing, PING)] * 2
    rig.plane.send_payload(peer.handle, OCC_EXIT)
    while (payload := peer.payloads()[0]) == framed(framing, PING):
        pass
    assert payload == framed(framing, OCC_EXIT)
    peer.send(framed(framing, PING), framed(framing, OCC_EXIT))
    assert rig.event(OccReceived) == OccReceived(PeerHandle(1), OCC_EXIT)
    assert rig.tap_is_quiet()
    assert rig.snapshot().drops == {}


REFUSED: Final[dict[Framing, tuple[tuple[bytes, bool], ...]]] = {
    "comp-lzo": ((b"\x66", True), (b"\x69", True), (b"\xfb", False), (b"\x02", False)),
    "stub": ((b"\x69", True), (b"\x66", True), (b"\xfa", False), (b"\x02", False)),
    "stub-v2": ((b"\x50\x01", True), (b"\x50\x03", True)),
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_what_is_compressed_or_framed_otherwise_is_dropped_counted_and_reported_once(
    rig: Rig, framing: Framing
) -> None:
    for number, (mark, is_compressed) in enumerate(REFUSED[framing], 1):
        peer = rig.peer(number, framing=framing)
        peer.send(*(mark + frame(2, 1) for _ in range(3)), framed(framing, frame(2, 1)))
        assert rig.frames() == [frame(2, 1)]
        assert rig.event(FramingRefused) == FramingRefused(peer.handle, is_compressed)
        reason = "compressed" if is_compressed else "bad_framing"
        counters = rig.snapshot().peers[number - 1].counters
        assert counters.drops == {("receive", reason): 3}
    assert not rig.events(FramingRefused)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_what_is_too_short_without_its_framing_is_dropped(rig: Rig, framing: Framing) -> None:
    peer = rig.peer(1, framing=framing)
    least = frame(9, ESCAPED)[:14]
    peer.send(framed(framing, least[:13]), framed(framing, least))
    assert rig.frames() == [least]
    rig.dropped("receive", "short_frame")


def test_a_framing_that_nobody_knows_is_refused(rig: Rig) -> None:
    with pytest.raises(DataplaneError) as error:
        rig.peer(1, framing="lz4")  # type: ignore[arg-type]
    assert error.value.code == "bad_setting"
