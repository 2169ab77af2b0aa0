"""Knows who had a station first, a LAN port or a tunnel's TAP: no peer may take over a LAN station's address.

Fed with what the kernel's bridges learn and forget. A claim ends once the other side has had the address
alone for HELD_ALONE_SECONDS. The claim of a LAN port outlives the station's silence, because a peer may wait
for it.

Pure: callers pass `now` in monotonic seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

HELD_ALONE_SECONDS: Final = 300.0
LAN_MEMORY_SECONDS: Final = 3600.0
STATIONS_MAX: Final = 16_384
"""Of each side."""


@dataclass(slots=True)
class _Claim:
    order: int
    """When it began, as a count: both sides may be heard at the same moment."""
    last: float


class Sightings:
    """Claims on stations. Bounded: peers can push out only claims of TAPs."""

    def __init__(self, stations_max: int = STATIONS_MAX) -> None:
        self._stations_max = stations_max
        self._lan: dict[Hashable, _Claim] = {}
        self._tap: dict[Hashable, _Claim] = {}
        self._overflowed_at = float("-inf")
        self._order = itertools.count()

    def hear_lan(self, station: Hashable, now: float) -> None:
        """A LAN port has the station now."""
        claim, other = self._lan.get(station), self._tap.get(station)
        if claim is None:
            if len(self._lan) >= self._stations_max and not self._prune(now):
                self._overflowed_at = now
                return
            self._lan[station] = _Claim(next(self._order), now)
            return
        if _held_alone(other, claim, now):
            claim.order = next(self._order)
        claim.last = now

    def hear_tap(self, station: Hashable, now: float) -> None:
        """A TAP has the station now: a peer sends its frames."""
        claim, other = self._tap.get(station), self._lan.get(station)
        if claim is None:
            if len(self._tap) >= self._stations_max:
                self._tap.pop(next(iter(self._tap)))
            self._tap[station] = _Claim(next(self._order), now)
            return
        if _held_alone(other, claim, now):
            claim.order = next(self._order)
        claim.last = now

    def forget_tap(self, station: Hashable) -> None:
        """The TAP has it no longer, and no LAN port took it."""
        self._tap.pop(station, None)

    def is_claimed_by_tap(self, station: Hashable) -> bool:
        """Whether a peer sent frames of it; all other stations need no attention."""
        return station in self._tap

    def was_remote_first(self, station: Hashable, now: float) -> bool:
        """Whether a peer had it before any LAN port; False where that is uncertain."""
        tap, lan = self._tap.get(station), self._lan.get(station)
        if tap is None:
            return False
        if lan is None:
            return now - self._overflowed_at > LAN_MEMORY_SECONDS
        return tap.order < lan.order

    def _prune(self, now: float) -> bool:
        """Forget LAN stations that were silent for long. True where that made room."""
        old = [station for station, claim in self._lan.items() if now - claim.last > LAN_MEMORY_SECONDS]
        for station in old:
            del self._lan[station]
        return bool(old)


def _held_alone(other: _Claim | None, claim: _Claim, now: float) -> bool:
    """The other side was heard last, and that was long ago."""
    return other is not None and other.last > claim.last and now - other.last > HELD_ALONE_SECONDS
