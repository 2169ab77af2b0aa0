"""Fuzz target: what the data plane reads in frames of a peer: MSS, joining into super-frames, cutting them.

The input is a batch: two bytes of length, then so many of a frame, and so on.
"""

from __future__ import annotations

from bridged.dataplane.portable.headers.coalesce import Coalescer
from bridged.dataplane.portable.headers.mss import clamp_mss
from bridged.dataplane.portable.headers.segment import BadSuperFrame, segment
from bridged.dataplane.portable.headers.vnet import parse_vnet

VNET_OCTETS = 10
FRAMES_MAX = 64


def one_input(data: bytes) -> None:
    frames = _frames(data)
    for frame in frames:
        changed = clamp_mss(frame, 1200)
        assert changed is None or len(changed) == len(frame)
    again: list[bytes] = []
    for packet, count in Coalescer(VNET_OCTETS).coalesce(list(frames)):
        cut = segment(parse_vnet(packet), packet[VNET_OCTETS:])
        assert len(cut) == count
        again += cut
    # Flows may overtake one another, but nothing is lost, made up or changed.
    assert sorted(again) == sorted(frames)
    if len(data) > VNET_OCTETS:
        try:
            segment(parse_vnet(data), data[VNET_OCTETS:])
        except BadSuperFrame:
            pass


def _frames(data: bytes) -> list[bytes]:
    frames = []
    at = 0
    while at + 2 <= len(data) and len(frames) < FRAMES_MAX:
        length = max(14, int.from_bytes(data[at : at + 2], "big") % 1600)
        frames.append(data[at + 2 : at + 2 + length].ljust(14, b"\0"))
        at += 2 + length
    return frames
