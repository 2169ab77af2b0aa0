"""Splits a batch of frames into runs with the same addresses.

Pure.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

_FIRST_12: Final = itemgetter(slice(12))


def runs_of(frames: list[bytes]) -> list[tuple[bytes, list[bytes]]]:
    """(first 12 bytes, frames) of consecutive frames that have these bytes in common, in order."""
    addresses = frames[0][:12]
    if len(frames) == 1 or len(set(map(_FIRST_12, frames))) == 1:
        return [(addresses, frames)]
    runs = []
    start = 0
    for index, frame in enumerate(frames):
        if not frame.startswith(addresses):
            runs.append((addresses, frames[start:index]))
            start = index
            addresses = frame[:12]
    runs.append((addresses, frames[start:]))
    return runs
