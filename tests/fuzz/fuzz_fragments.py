"""Fuzz target: parts of payloads, arbitrary ones among those of a payload that we cut.

An input is a list of steps: one byte says what comes, and how much later than the last one.
"""

from __future__ import annotations

from bridged.protocol.packets.fragments import (
    FRAGMENT_LEAST,
    PARTS_MOST,
    PAYLOAD_MOST,
    WAITING_MOST,
    WAITING_OCTETS,
    FragmentError,
    Reassembly,
    cut,
)

STEPS_MOST = 200


def one_input(data: bytes) -> None:
    reassembly = Reassembly()
    at, now = 0, 0.0
    for _ in range(STEPS_MOST):
        head = data[at : at + 3]
        if len(head) < 3:
            break
        at += 3
        now += (head[0] >> 4) / 2
        if head[0] & 1:
            cut_and_joined(head, data[at:])
        size = head[2] + 256 * (head[0] >> 1 & 7)
        packet = data[at : at + head[1] % 32] + bytes(size)
        at += head[1] % 32
        take(reassembly, packet, now)


def take(reassembly: Reassembly, packet: bytes, now: float) -> None:
    try:
        payload = reassembly.take(packet, now)
        assert payload is None or 0 < len(payload) <= PAYLOAD_MOST
    except FragmentError:
        pass
    waiting = reassembly._waiting
    assert len(waiting) <= WAITING_MOST
    assert reassembly._octets == sum(len(one.octets) for one in waiting.values()) <= WAITING_OCTETS
    assert not any(one.is_complete for one in waiting.values())


def cut_and_joined(head: bytes, payload: bytes) -> None:
    """What we cut comes back whole, from the last part to the first."""
    payload = payload * (1 + head[1]) or b"x"
    packets = cut(payload, FRAGMENT_LEAST // 4 + head[2], head[1])
    assert len(packets) <= PARTS_MOST
    reassembly = Reassembly()
    joined = [reassembly.take(packet, 0.0) for packet in reversed(packets)]
    assert joined == [*[None] * (len(packets) - 1), payload]
