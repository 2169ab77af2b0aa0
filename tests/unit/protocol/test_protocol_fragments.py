"""`fragment`: what is cut comes back, in any order; junk is bounded and refused."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from bridged.protocol.packets.fragments import (
    HEADER_OCTETS,
    PARTS_MOST,
    PAYLOAD_MOST,
    WAITING_OCTETS,
    WAITING_SECONDS,
    FragmentError,
    Reassembly,
    cut,
)


@given(st.integers(1, 9000), st.integers(64, 2000), st.integers(0, 255), st.integers())
def test_what_is_cut_comes_back_in_any_order(size: int, most: int, sequence: int, seed: int) -> None:
    # Hypothesis draws what matters, sizes; an emulated processor would take long to draw the octets, too.
    chance = random.Random(seed)
    payload = chance.randbytes(size)
    packets = cut(payload, most, sequence)
    assert len(packets) <= PARTS_MOST
    if len(payload) <= most * (PARTS_MOST // 2):
        assert all(len(packet) <= HEADER_OCTETS + most for packet in packets)
    chance.shuffle(packets)
    reassembly = Reassembly()
    joined = [reassembly.take(packet, 0) for packet in packets]
    assert joined == [*[None] * (len(packets) - 1), payload]


@given(st.lists(st.binary(max_size=80), max_size=60))
def test_junk_is_joined_refused_or_given_up_within_bounds(packets: list[bytes]) -> None:
    reassembly = Reassembly()
    for number, packet in enumerate(packets):
        try:
            payload = reassembly.take(packet, number)
            assert payload is None or 0 < len(payload) <= PAYLOAD_MOST
        except FragmentError:
            pass
        assert reassembly._octets == sum(len(one.octets) for one in reassembly._waiting.values())
        assert reassembly._octets <= WAITING_OCTETS


def test_parts_that_come_too_late_begin_again() -> None:
    first, second = cut(bytes(1000), 600, 7)
    reassembly = Reassembly()
    assert reassembly.take(first, 0) is None
    assert reassembly.take(second, WAITING_SECONDS + 1) is None
    assert reassembly.lost == 1
    assert reassembly.take(first, WAITING_SECONDS + 1) == bytes(1000)
