"""Coalescing and segmentation against slow references, on frames that hypothesis makes up."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from bridged.checksum import checksum_octets, word_sum
from bridged.dataplane.portable.headers.coalesce import Coalescer
from bridged.dataplane.portable.headers.segment import BadSuperFrame, segment
from bridged.dataplane.portable.headers.vnet import VnetHeader, parse_vnet

VNET = 12


def slow_sum(data: bytes) -> int:
    """RFC 1071, word by word, as big-endian."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def tcp_frame(
    *,
    is_v6: bool = False,
    port: int = 1000,
    identity: int = 0,
    number: int = 0,
    flags: int = 0x10,
    window: int = 500,
    stamp: int = 1,
    tos: int = 0,
    text: bytes = b"x",
    error: int = 0,
) -> bytes:
    """A TCP segment with timestamps; `error` is added to its checksum."""
    tcp = bytearray(
        struct.pack("!HHIIBBHHH", port, 80, number & 0xFFFFFFFF, 77, 0x80, flags, window, 0, 0)
        + b"\x01\x01\x08\x0a"
        + struct.pack("!II", stamp, 9)
    )
    length = len(tcp) + len(text)
    if is_v6:
        addresses = bytes(15) + b"\1" + bytes(15) + b"\2"
        network = struct.pack("!IHBB", 6 << 28 | tos << 20, length, 6, 64) + addresses
    else:
        addresses = b"\x0a\0\0\1\x0a\0\0\2"
        head = struct.pack("!BBHHHBBH", 0x45, tos, length + 20, identity & 0xFFFF, 0x4000, 64, 6, 0)
        checksum = 0xFFFF - slow_sum(head + addresses)
        network = head[:10] + checksum.to_bytes(2, "big") + addresses
    total = 0xFFFF - slow_sum(addresses + struct.pack("!HH", 6, length) + bytes(tcp) + text)
    tcp[16:18] = ((total + error) & 0xFFFF).to_bytes(2, "big")
    ethernet = b"\2\0\0\0\0\2\2\0\0\0\0\1" + (b"\x86\xdd" if is_v6 else b"\x08\x00")
    return ethernet + network + bytes(tcp) + text


def taken_apart(writes: list[tuple[bytes, int]]) -> list[bytes]:
    frames: list[bytes] = []
    for packet, count in writes:
        parts = segment(parse_vnet(packet), packet[VNET:])
        assert len(parts) == count
        frames += parts
    return frames


@given(st.binary(max_size=3000))
def test_the_quick_sum_is_that_of_rfc_1071(data: bytes) -> None:
    assert word_sum(data) == int.from_bytes(slow_sum(data).to_bytes(2, "big"), "little") % 0xFFFF
    padded = data + bytes(len(data) % 2)
    assert slow_sum(padded + checksum_octets(word_sum(data))) in (0, 0xFFFF)


SEGMENTS = st.lists(
    st.fixed_dictionaries(
        {
            "flow": st.sampled_from([0, 0, 0, 1, 2]),
            "size": st.sampled_from([1, 2, 99, 100, 100, 100, 100, 101, 1448]),
            "skip": st.sampled_from([0, 0, 0, 0, 0, 1, -1]),
            "flags": st.sampled_from([0x10, 0x10, 0x10, 0x10, 0x18, 0x11, 0x02, 0x50, 0x90, 0x30, 0x14]),
            "stamp": st.sampled_from([1, 1, 1, 1, 1, 2]),
            "tos": st.sampled_from([0, 0, 0, 0, 3]),
            "window": st.sampled_from([500, 500, 500, 500, 400]),
            "error": st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, 0x100]),
            "jump": st.sampled_from([0, 0, 0, 0, 0, 1]),
        }
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(SEGMENTS, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFF), st.booleans())
def test_what_is_joined_comes_apart_again_in_the_order_of_each_flow(
    wishes: list[dict[str, int]], number: int, identity: int, is_v6: bool
) -> None:
    numbers, identities = [number] * 3, [identity] * 3
    frames = []
    for index, wish in enumerate(wishes):
        flow = wish["flow"]
        numbers[flow] += wish["skip"]
        identities[flow] += wish["jump"]
        frames.append(
            tcp_frame(
                is_v6=is_v6,
                port=1000 + flow,
                identity=identities[flow],
                number=numbers[flow],
                flags=wish["flags"],
                window=wish["window"],
                stamp=wish["stamp"],
                tos=wish["tos"],
                text=bytes((index + at) & 0xFF for at in range(wish["size"])),
                error=wish["error"],
            )
        )
        numbers[flow] += wish["size"]
        identities[flow] += 1
    result = taken_apart(Coalescer(VNET).coalesce(frames))
    ports = slice(54, 56) if is_v6 else slice(34, 36)
    for flow in range(3):
        port = (1000 + flow).to_bytes(2, "big")
        assert [item for item in result if item[ports] == port] == [
            item for item in frames if item[ports] == port
        ]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 60),
    st.integers(1, 1448),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFF),
    st.booleans(),
    st.sets(st.integers(0, 59), max_size=4),
    st.integers(1, 0xFFFE),
)
def test_a_wrong_checksum_is_never_vouched_for(
    count: int, size: int, number: int, identity: int, is_v6: bool, bad: set[int], error: int
) -> None:
    frames = [
        tcp_frame(
            is_v6=is_v6,
            identity=identity + index,
            number=number + index * size,
            text=bytes((index * 3 + at) & 0xFF for at in range(size)),
            error=error if index in bad else 0,
        )
        for index in range(count)
    ]
    writes = Coalescer(VNET).coalesce(frames)
    assert taken_apart(writes) == frames
    wrong = {frames[index] for index in bad if index < count}
    assert wrong <= {packet[VNET:] for packet, _ in writes if not any(packet[:VNET])}
    if not wrong:
        assert len(writes) < count, "nothing kept them apart"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=14, max_size=120), max_size=20))
def test_frames_of_any_octets_pass_unchanged(frames: list[bytes]) -> None:
    starts = [b"", b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\x00\x45", b"\2\0\0\0\0\2\2\0\0\0\0\1\x86\xdd"]
    made = [starts[len(item) % 3] + item for item in frames]
    assert taken_apart(Coalescer(VNET).coalesce(made)) == made


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, 7),
    st.integers(0, 65535),
    st.integers(0, 200),
    st.integers(0, 200),
    st.binary(min_size=14, max_size=300),
    st.booleans(),
)
def test_a_header_of_any_numbers_gives_frames_or_a_refusal(
    gso: int, size: int, start: int, offset: int, octets: bytes, is_ip: bool
) -> None:
    frame = octets[:12] + b"\x08\x00\x45" + octets[15:] if is_ip else octets
    try:
        frames = segment(VnetHeader(True, gso, False, 0, size, start, offset), frame)
    except BadSuperFrame:
        return
    assert frames
    assert sum(map(len, frames)) >= len(frame)
