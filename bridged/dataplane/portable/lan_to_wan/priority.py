"""Urgent frames of one batch go first, and each outer packet carries the priority of its frame.

Source: IEEE 802.1Q-2022, table 8-5 (of two traffic classes the upper one is for PCP 4 to 7); RFC 2983. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridged.dataplane.portable.headers.priority import Reader

LEAST_URGENT: Final = 32
"""The DSCP CS4: PCP 4 to 7, and AF4x, CS4, CS5, EF, CS6, CS7 are urgent."""


def urgent_first(frames: list[bytes], reader: Reader) -> list[bytes]:
    """The same frames, urgent ones first. Both kinds keep their order."""
    return sorted(frames, key=lambda frame: reader(frame) < LEAST_URGENT)


def stretches(frames: Sequence[bytes], reader: Reader) -> list[tuple[int, int]]:
    """(traffic class, how many) of consecutive frames whose packets have the same class."""
    found: list[tuple[int, int]] = []
    for frame in frames:
        octet = reader(frame) << 2
        if found and found[-1][0] == octet:
            found[-1] = (octet, found[-1][1] + 1)
        else:
            found.append((octet, 1))
    return found
