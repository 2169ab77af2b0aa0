"""Finds the largest packet that crosses the path to one peer, by authenticated probes that nobody may cut.

Source: RFC 8899 (DPLPMTUD): base, search, search complete, black hole detection; what routers say (ICMP) is
not believed. A probe is an OCC mtu-load-request of OpenVPN (docs/protocol/data.md#5-2), filled up to the size
that is tried; the peer's small mtu-load acknowledges it. Pure: the caller sends, and tells the time
(monotonic seconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.protocol.packets.occ import OccMessage, OccType, serialize_occ

TRIES: Final = 3
"""Unanswered probes of one size before it counts as too large."""
PACE: Final = 0.5
"""Seconds between two probes, at least."""
CONFIRM_SECONDS: Final = 60.0
"""How often the size in use is tried again: a path that bears less is found by that."""
RAISE_SECONDS: Final = 600.0
"""How often a larger one is tried, and a peer that does not answer probes."""
STEP: Final = 8
"""The result is less than this many bytes below the truth."""
REPLY_OCTETS: Final = 320
"""Bytes of the peer's answer, at least: one below its overhead would hide the number of the probe."""
NUMBERS: Final = 64
COMMON: Final = (
    1280,
    1300,
    1340,
    1380,
    1400,
    1412,
    1420,
    1432,
    1440,
    1452,
    1464,
    1472,
    1480,
    1492,
    1500,
    9000,
)
"""Bytes of outer packets on common paths: tunnels, PPPoE, Ethernet. Tried first."""


@dataclass(frozen=True, slots=True)
class PathProbe:
    """Send `payload`, filled up to an outer packet of `octets` bytes."""

    payload: bytes
    octets: int


class PathMtu:
    """The search for one peer's path. `least` and `most`: bytes of outer packets to try, both included.

    Driven by `poll_probe`, `note_sent` or `note_withheld` after each probe, and `handle_answer`. `known`:
    what the path bears; None: not known yet, or the peer does not answer.
    """

    _phase: str
    _most: int
    _low: int
    """Crosses, as far as is known."""
    _high: int
    """Does not, or need not."""
    _size: int
    _tries: int
    _is_waiting: bool
    _numbers: set[int]
    """Of the probes of `_size`."""
    _due: float

    def __init__(self, least: int, most: int, now: float) -> None:
        self.known: int | None = None
        self._least = least
        self._limit = most
        self._offset: int | None = None
        """What the peer's answers have less than was asked for."""
        self._number = 0
        self._round_trip: float | None = None
        self._sent_at = 0.0
        self._raise_at = 0.0
        self.restart(now)

    def restart(self, now: float) -> None:
        """The path is another one: begin again."""
        self.known = None
        self._phase = "base"
        self._most = self._limit
        self._low, self._high = 0, self._limit + 1
        self._try(self._least, now + PACE)

    def handle_path_change(self, now: float) -> None:
        """The path may be another one: confirm what is known soon, and look for more."""
        if self._phase == "confirm" and not self._is_waiting:
            self._raise_at = now
            self._due = min(self._due, now + PACE)

    def next_deadline(self) -> float:
        """When to call `poll_probe`."""
        return self._due

    def poll_probe(self, now: float) -> PathProbe | None:
        """The probe to send now."""
        if now < self._due:
            return None
        if self._is_waiting:
            self._is_waiting = False
            self._tries += 1
            if self._tries >= TRIES:
                self._fail(now)
                if now < self._due:
                    return None
        if self._offset is not None:
            self._number = (self._number + 1) % NUMBERS
        self._numbers.add(self._number)
        body = (REPLY_OCTETS + self._number).to_bytes(2, "big")
        return PathProbe(serialize_occ(OccMessage(OccType.MTU_LOAD_REQUEST, body)), self._size)

    def note_sent(self, octets: int, now: float) -> None:
        """An outer packet of `octets` bytes left; 0: the link of this host takes none so large."""
        if not octets:
            self._fail(now)
            return
        if self._size == self._most:
            # No frame needs a larger one.
            self._most = self._size = min(octets, self._size)
            self._high = min(self._high, self._most + 1)
        self._is_waiting = True
        self._sent_at = now
        wait = 2.0 if self._round_trip is None else min(3.0, 4 * self._round_trip + 0.2)
        self._due = now + max(PACE, wait)

    def note_withheld(self, now: float) -> None:
        """The probe may not be sent yet; it does not count."""
        self._due = now + PACE

    def handle_answer(self, octets: int, now: float) -> None:
        """An mtu-load with a payload of `octets` bytes came. One that answers nothing is ignored."""
        if not self._is_waiting:
            return
        if self._offset is None:
            self._offset = REPLY_OCTETS + self._number - octets
        if octets + self._offset - REPLY_OCTETS not in self._numbers:
            return
        if len(self._numbers) == 1:
            self._round_trip = now - self._sent_at
        self._is_waiting = False
        self._pass(now)

    def _try(self, size: int, due: float) -> None:
        self._size = size
        self._tries = 0
        self._is_waiting = False
        self._numbers = set()
        self._due = due

    def _pass(self, now: float) -> None:
        due = max(now, self._sent_at + PACE)
        self._low = self._size
        if self._phase == "base":
            self._phase = "search"
            self._high = self._most + 1
            # Mostly everything crosses.
            self._try(self._most, due)
        elif self._phase == "raise":
            self._phase = "search"
            self._try(self._most, due)
        elif self._phase == "confirm":
            larger = [size for size in (*COMMON, self._most) if self._low < size <= self._most]
            if now < self._raise_at or not larger:
                self._rest(now)
            else:
                self._phase = "raise"
                self._high = self._most + 1
                self._try(min(larger), due)
        else:
            self._search(due, now)

    def _fail(self, now: float) -> None:
        """Nothing of this size crosses."""
        if self._phase == "base":
            self.known = None
            self._try(self._least, now + RAISE_SECONDS)
        elif self._phase == "confirm":
            # A black hole: what crossed before does not.
            self._phase = "base"
            self._try(self._least, now)
        else:
            self._high = min(self._high, self._size)
            if self._phase == "raise":
                self._raise_at = now + RAISE_SECONDS
                self._rest(now)
            else:
                self._search(now, now)

    def _search(self, due: float, now: float) -> None:
        """Between a size that crosses and one that does not."""
        if self._high - self._low <= STEP or self._low >= self._most:
            self.known = self._low
            self._raise_at = now + RAISE_SECONDS
            self._rest(now)
            return
        inside = [size for size in COMMON if self._low < size < self._high]
        self._try(inside[len(inside) // 2] if inside else (self._low + self._high) // 2, due)

    def _rest(self, now: float) -> None:
        self._phase = "confirm"
        self._try(self._low, now + CONFIRM_SECONDS)
