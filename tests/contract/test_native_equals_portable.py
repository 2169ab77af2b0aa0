"""Differential: the native core gives what the portable one gives, byte for byte, good input and bad.

scapy makes the frames, Hypothesis chooses them; `bridged.dataplane.portable` is the readable reference.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from bridged.dataplane.contract import Station
from bridged.dataplane.portable.headers.coalesce import Coalescer
from bridged.dataplane.portable.headers.mss import clamp_mss
from bridged.dataplane.portable.headers.segment import segment
from bridged.dataplane.portable.headers.vnet import GSO_UDP_L4, VnetHeader, parse_vnet, serialize_vnet
from bridged.dataplane.portable.tables.fdb import Fdb
from bridged.protocol.keys.replay import ReplayWindow
from bridged.units import MonotonicSeconds, PeerHandle, Seconds

# The fixture is the compiled module itself, the same one for every example.
drawn = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
A, B = "02:00:5e:00:00:01", "02:00:5e:00:00:02"
LINKS = ("untagged", "tagged", "double")
NETWORKS = ("IPv4", "IPv4-options", "IPv6")
OPTIONS: tuple[list[Any], ...] = (
    [],
    [("NOP", None), ("NOP", None), ("Timestamp", (7, 9))],
    [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)],
)
words = st.integers(0, 0xFFFF)
flags = st.sets(st.sampled_from("FSRPAUEC")).map(lambda found: "".join(sorted(found)))


def link(name: str) -> Packet:
    outer = Ether(src=A, dst=B)
    if name == "tagged":
        return outer / Dot1Q(vlan=7, prio=3)
    return outer / Dot1AD(vlan=9) / Dot1Q(vlan=7) if name == "double" else outer


def network(name: str, identity: int) -> Packet:
    if name == "IPv6":
        return IPv6(src="fd00::1", dst="fd00::2", tc=identity & 0xFF, fl=identity)
    options = [IPOption_NOP()] * 4 if name == "IPv4-options" else []
    return IP(src="10.0.0.1", dst="10.0.0.2", flags="DF", id=identity, options=options)


def octets(size: int, salt: int) -> bytes:
    return bytes((at * 31 + at // 251 + salt) & 0xFF for at in range(size))


def partial(frame: bytes, start: int, offset: int, protocol: int, is_ipv6: bool) -> bytes:
    """The frame with the pseudo-header's sum in its checksum field, as NEEDS_CSUM has it."""
    at = frame.index(bytes.fromhex("fd00") if is_ipv6 else bytes.fromhex("0a000001"), 14)
    addresses = frame[at : at + (32 if is_ipv6 else 8)]
    pseudo = addresses + struct.pack("!HH", protocol, len(frame) - start)
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    field = start + offset
    return frame[:field] + total.to_bytes(2, "big") + frame[field + 2 :]


@st.composite
def super_frames(draw: st.DrawFn) -> tuple[VnetHeader, bytes]:
    """What a kernel hands over: TCP or UDP, any segment size, any flags, any payload."""
    name = draw(st.sampled_from(NETWORKS))
    is_ipv6 = name == "IPv6"
    size = draw(st.integers(1, 9000) | st.integers(1, 64))
    segment_size = draw(st.integers(max(1, size // 40), 2000) | st.integers(size, 0xFFFF))
    head = link(draw(st.sampled_from(LINKS))) / network(name, draw(words))
    if draw(st.booleans()):
        layer: Packet = TCP(
            sport=1, dport=2, seq=draw(st.integers(0, 0xFFFFFFFF)), flags=draw(flags), ack=draw(words)
        )
        layer.options = draw(st.sampled_from(OPTIONS))
        kind, protocol, offset = (4 if is_ipv6 else 1), 6, 16
    else:
        layer = UDP(sport=1, dport=2)
        kind, protocol, offset = 5, 17, 6
    frame = bytes(head / layer / Raw(octets(size, draw(words))))
    start = len(frame) - size - len(bytes(layer))
    frame = partial(frame, start, offset, protocol, is_ipv6)
    body = len(frame) - size
    return VnetHeader(True, kind, draw(st.booleans()), body, segment_size, start, offset), frame


def by_portable(header: VnetHeader, frame: bytes) -> list[bytes]:
    """Nothing where the frame is refused: it is dropped then."""
    try:
        return segment(header, frame)
    except ValueError:
        return []


def by_native(module: Any, packet: bytes, vnet: int, fit: int = 0) -> list[bytes]:
    try:
        return list(module.segment(packet, vnet, fit))
    except ValueError:
        return []


@drawn
@given(made=super_frames(), vnet=st.sampled_from([10, 12]))
def test_super_frames_are_cut_alike(native_module: Any, made: tuple[VnetHeader, bytes], vnet: int) -> None:
    header, frame = made
    cut = by_native(native_module, serialize_vnet(header, vnet) + frame, vnet)
    assert cut == by_portable(header, frame)
    assert cut


@drawn
@given(made=super_frames(), at=st.integers(0, 90), value=st.integers(0, 255), length=st.integers(0, 9100))
def test_damaged_super_frames_are_refused_or_cut_alike(
    native_module: Any, made: tuple[VnetHeader, bytes], at: int, value: int, length: int
) -> None:
    header, frame = made
    packet = bytearray(serialize_vnet(header) + frame)[: max(10, length)]
    if at < len(packet):
        packet[at] = value
    damaged = bytes(packet)
    assert by_native(native_module, damaged, 10) == by_portable(parse_vnet(damaged), damaged[10:])


@drawn
@given(made=super_frames(), fit=st.integers(200, 1600))
def test_fitting_is_cutting_to_a_smaller_segment_size(
    native_module: Any, made: tuple[VnetHeader, bytes], fit: int
) -> None:
    header, frame = made
    payload = fit - header.header_length
    is_fitted = header.gso_type != GSO_UDP_L4 and payload >= 64
    wanted = replace(header, segment_size=min(header.segment_size, payload)) if is_fitted else header
    cut = by_native(native_module, serialize_vnet(header) + frame, 10, fit)
    assert cut == by_portable(wanted, frame)
    assert not is_fitted or max(map(len, cut)) <= fit


@drawn
@given(
    text=st.binary(min_size=14, max_size=200), start=st.integers(0, 210), offset=st.integers(0, 210) | words
)
def test_a_checksum_is_completed_alike(native_module: Any, text: bytes, start: int, offset: int) -> None:
    header = VnetHeader(True, 0, False, 0, 0, start, offset)
    assert by_native(native_module, serialize_vnet(header) + text, 10) == by_portable(header, text)


# --- coalescing


@st.composite
def batches(draw: st.DrawFn) -> list[bytes]:
    """Segments of a few flows, interleaved, some of them damaged, repeated or missing."""
    flows = []
    for port in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(["IPv4", "IPv6", "IPv4", "IPv4-options"]))
        size = draw(st.sampled_from([1, 2, 3, 99, 536, 1447, 1448]))
        count = draw(st.integers(1, 12))
        first = draw(st.sampled_from([100, 0xFFFC, 0xFFFF]))
        number = draw(st.sampled_from([5, 0xFFFFFF00, 0xFFFFFFFF]))
        options = OPTIONS[draw(st.integers(0, 1))]
        tags = link(draw(st.sampled_from(["untagged", "untagged", "untagged", "tagged"])))
        last = draw(st.integers(1, size))
        push = draw(st.sampled_from([-1, count - 1, count // 2]))
        flow = []
        for index in range(count):
            ip = network(name, first if name == "IPv6" else (first + index) & 0xFFFF)
            tcp = TCP(
                sport=1000 + port,
                dport=2000,
                seq=(number + index * size) & 0xFFFFFFFF,
                ack=5,
                flags="PA" if index == push else draw(st.sampled_from(["A"] * 12 + ["EA", "SA", "FA", "CA"])),
                options=options,
            )
            text = octets(last if index == count - 1 else size, index)
            flow.append(bytes(tags / ip / tcp / Raw(text)))
        flows.append(flow)
    frames = []
    while any(flows):
        flow = draw(st.sampled_from([flow for flow in flows if flow]))
        taken = draw(st.integers(1, len(flow)))
        frames += flow[:taken]
        del flow[:taken]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(frames) - 1))
        match draw(st.sampled_from(["flip", "repeat", "lose", "cut", "pad", "other"])):
            case "flip":
                damaged = bytearray(frames[at])
                damaged[draw(st.integers(0, len(damaged) - 1))] ^= 1 << draw(st.integers(0, 7))
                frames[at] = bytes(damaged)
            case "repeat":
                frames.insert(at, frames[draw(st.integers(0, len(frames) - 1))])
            case "lose" if len(frames) > 1:
                del frames[at]
            case "cut":
                frames[at] = frames[at][: draw(st.integers(14, len(frames[at])))]
            case "pad":
                frames[at] += bytes(draw(st.integers(1, 4)))
            case _:
                frames.insert(
                    at, bytes(Ether(src=A, dst=B) / network("IPv4", 1) / UDP(sport=1000, dport=2000))
                )
    return frames


def taken_apart(writes: list[tuple[bytes, int]], vnet: int) -> list[bytes]:
    frames: list[bytes] = []
    for packet, count in writes:
        found = segment(parse_vnet(packet), packet[vnet:])
        assert len(found) == count
        frames += found
    return frames


@drawn
@given(frames=batches(), vnet=st.sampled_from([10, 12]))
def test_batches_are_joined_alike(native_module: Any, frames: list[bytes], vnet: int) -> None:
    assert native_module.coalesce(frames, vnet, False, False) == Coalescer(vnet).coalesce(frames)


@drawn
@given(frames=batches(), vnet=st.sampled_from([10, 12]))
def test_what_native_joins_with_all_it_has_comes_apart_into_the_same_frames(
    native_module: Any, frames: list[bytes], vnet: int
) -> None:
    apart = taken_apart(native_module.coalesce(frames, vnet, True, True), vnet)
    assert sorted(apart) == sorted(frames)
    for flow in {flow_of(frame) for frame in frames} - {None}:
        in_order = [frame for frame in frames if flow_of(frame) == flow]
        assert [frame for frame in apart if flow_of(frame) == flow] == in_order


def flow_of(frame: bytes) -> bytes | None:
    """Protocol, addresses and ports; None where the frame is damaged beyond knowing."""
    at = 12
    while frame[at : at + 2] == b"\x81\x00":
        at += 4
    if frame[at : at + 3] == b"\x08\x00\x45":
        return frame[at + 11 : at + 12] + frame[at + 14 : at + 26]
    return frame[at + 8 : at + 9] + frame[at + 10 : at + 46] if frame[at : at + 2] == b"\x86\xdd" else None


@drawn
@given(
    name=st.sampled_from(["IPv4", "IPv6"]),
    size=st.integers(1, 1472),
    count=st.integers(2, 80),
    bad=st.integers(0, 90),
    last=st.integers(1, 1472),
)
def test_datagrams_of_a_flow_are_joined_and_come_apart_into_the_same_frames(
    native_module: Any, name: str, size: int, count: int, bad: int, last: int
) -> None:
    frames = []
    for index in range(count):
        text = octets(min(last, size) if index == count - 1 else size, index)
        ip = network(name, 1 if name == "IPv6" else (0xFFF0 + index) & 0xFFFF)
        frames.append(bytes(link("untagged") / ip / UDP(sport=1, dport=2) / Raw(text)))
    if bad < count:
        frames[bad] = frames[bad][:-1] + bytes([frames[bad][-1] ^ 1])
    writes = native_module.coalesce(frames, 10, True, False)
    assert taken_apart(writes, 10) == frames
    if bad < count:
        assert (bytes(10) + frames[bad], 1) in writes, "no promise about its checksum may be made"
    elif count > 2 and size > 1:
        assert len(writes) < count


# --- the tables


@drawn
@given(
    size=st.sampled_from([0, 1, 63, 64, 65, 4096]),
    steps=st.lists(st.integers(-200, 200) | st.integers(-5000, 5000) | st.just(0x7FFFFFFF), max_size=150),
)
def test_the_replay_windows_agree(native_module: Any, size: int, steps: list[int]) -> None:
    reference, window = ReplayWindow(size), native_module.ReplayWindow(size)
    for step in steps:
        number = min(max(reference.highest + step, 0), 0xFFFFFFFF)
        assert window.verdict(number) == reference.verdict(number)
        assert window.accept(number) == reference.accept(number)
        assert window.highest == reference.highest


stations = st.integers(0, 12)
ports_of_fdb = st.sampled_from([None, 1, 2, 3])


@drawn
@given(
    capacity=st.integers(1, 12),
    each=st.integers(1, 6),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["learn"] * 6 + ["find", "flush", "sweep"]),
            stations,
            ports_of_fdb,
            # Binary fractions: sums of others differ by a rounding between seconds and nanoseconds.
            st.sampled_from([0.0, 1 / 128, 3 / 16, 5 / 16, 4.0, 11.0]),
        ),
        max_size=60,
    ),
)
def test_the_forwarding_databases_agree(
    native_module: Any, capacity: int, each: int, steps: list[tuple[str, int, int | None, float]]
) -> None:
    reference = Fdb(capacity=capacity, addresses_per_peer=each, ageing=Seconds(10.0), move_hold=Seconds(0.25))
    table = native_module.Fdb(capacity=capacity, addresses_per_peer=each, ageing=10.0, move_hold=0.25)
    now = 1000.0
    for action, station, number, pause in steps:
        now += pause
        moment = MonotonicSeconds(now)
        port = None if number is None else PeerHandle(number)
        # 0 is all zero, 1 a group address.
        address = bytes(6) if station == 0 else (b"\x01" if station == 1 else b"\x02") + bytes([station] * 5)
        match action:
            case "learn":
                assert table.learn(address, number, now) == reference.learn(Station(0, address), port, moment)
            case "find":
                known = reference.find(Station(0, address), moment)
                assert table.find(address, now) == (None if known is None else (known.port,))
            case "flush":
                assert table.flush(number) == reference.flush(port)
            case "sweep":
                assert table.sweep(now) == reference.sweep(moment)
        assert len(table) == len(reference)
        assert table.count(number) == reference.count(port)
        assert dict(table.changes()) == reference.changes


# --- MSS


@drawn
@given(
    name=st.sampled_from(NETWORKS),
    tags=st.sampled_from(LINKS),
    options=st.lists(
        st.sampled_from([("NOP", None), ("MSS", 1460), ("MSS", 536), ("WScale", 7), ("SAckOK", b"")]),
        max_size=8,
    ),
    carried=flags,
    limit=st.sampled_from([0, 1, 20, 21, 536, 1200, 1368, 1460, 9000]),
    at=st.integers(0, 120),
    value=st.integers(0, 255),
    length=st.integers(14, 200),
)
def test_the_mss_is_lowered_alike(
    native_module: Any,
    name: str,
    tags: str,
    options: list[Any],
    carried: str,
    limit: int,
    at: int,
    value: int,
    length: int,
) -> None:
    tcp = TCP(sport=1, dport=2, flags=carried, options=options)
    sound = bytes(link(tags) / network(name, 3) / tcp / Raw(b"x" * 20))
    damaged = bytearray(sound)[:length]
    if at < len(damaged):
        damaged[at] = value
    for frame in (sound, bytes(damaged)):
        assert native_module.clamp_mss(frame, limit) == clamp_mss(frame, limit)


def test_the_mss_options_above_are_such_that_some_are_lowered(native_module: Any) -> None:
    frame = bytes(link("tagged") / network("IPv6", 3) / TCP(flags="S", options=[("MSS", 1460)]))
    assert native_module.clamp_mss(frame, 1368) is not None


def test_a_header_without_a_frame_is_refused(native_module: Any) -> None:
    with pytest.raises(ValueError, match="virtio-net"):
        native_module.segment(bytes(9), 10, 0)
    with pytest.raises(ValueError, match="no frame"):
        native_module.segment(bytes(10), 12, 0)
