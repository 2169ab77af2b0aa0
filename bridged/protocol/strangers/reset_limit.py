"""How many hard resets are answered, and whose: an answer goes to an address that anybody may have written.

Source: docs/decisions/0035.
Pure: callers pass `now` (monotonic seconds). The native twin is native/core/src/resets.rs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.addresses import Endpoint, network_of

FIRST_BURST: Final = 2048.0
FIRST_PER_SECOND: Final = 4096.0
"""Answers to networks within their share."""
REPEAT_BURST: Final = 1024.0
REPEAT_PER_SECOND: Final = 2048.0
"""Answers to resets that came before: a client repeats its reset, a flood of forged ones mostly does not."""
BEYOND_BURST: Final = 128.0
BEYOND_PER_SECOND: Final = 256.0
"""Answers beyond a network's share: who of them gets one is chance."""
CALM: Final = (1024.0, 512.0)
PRESSED: Final = (8.0, 2.0)
"""Burst and answers a second of one network. In calm times, a thousand clients behind one address fit in;
once half of FIRST_BURST is used up, each network gets a little."""
NETWORKS_REMEMBERED: Final = 4096
MEMORY_SECONDS: Final = 2.2
"""A reset is remembered for so long at least, and at most twice: OpenVPN repeats after 2 s, we after 1 s."""
MEMORY_CELLS: Final = 1 << 20
REPEATS_MAX: Final = 3
"""A reset that came more often than that is no client's."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float

    def has(self, now: float, burst: float, rate: float) -> float:
        self.tokens = min(burst, self.tokens + max(0.0, now - self.at) * rate)
        self.at = now
        return self.tokens

    def take(self, now: float, burst: float, rate: float) -> bool:
        if self.has(now, burst, rate) < 1.0:
            return False
        self.tokens -= 1.0
        return True


class ResetLimit:
    """Whether to answer one more hard reset.

    Each network (/24, /64) has a share. Beyond it, and beyond what all may have together, chance decides: an
    answer goes to whoever comes when there is a token. A reset that is repeated has tokens of its own: a
    client repeats its reset, and a flood with ever new sources does not.
    Holds NETWORKS_REMEMBERED networks (the one longest unheard is forgotten) and two tables of MEMORY_CELLS
    octets.
    """

    def __init__(self) -> None:
        self._first = _Bucket(FIRST_BURST, 0.0)
        self._repeat = _Bucket(REPEAT_BURST, 0.0)
        self._beyond = _Bucket(BEYOND_BURST, 0.0)
        self._networks: dict[bytes, _Bucket] = {}
        self._memory = _Memory()

    def allows(self, source: Endpoint, session_id: bytes, now: float) -> bool:
        """Take what an answer costs; False where there is none for this one."""
        times = self._memory.note(hash((source.host, source.port, session_id)), now)
        if times > REPEATS_MAX:
            return False
        if times > 1 and self._repeat.take(now, REPEAT_BURST, REPEAT_PER_SECOND):
            return True
        share = CALM if self._first.has(now, FIRST_BURST, FIRST_PER_SECOND) > FIRST_BURST / 2 else PRESSED
        if self._network(network_of(source.host), now).take(now, *share):
            return self._first.take(now, FIRST_BURST, FIRST_PER_SECOND)
        return self._beyond.take(now, BEYOND_BURST, BEYOND_PER_SECOND)

    def _network(self, network: bytes, now: float) -> _Bucket:
        bucket = self._networks.pop(network, None)
        if bucket is None:
            bucket = _Bucket(CALM[0], now)
            if len(self._networks) >= NETWORKS_REMEMBERED:
                del self._networks[next(iter(self._networks))]
        self._networks[network] = bucket
        return bucket


class _Memory:
    """How often something came lately: two tables of counters, each cell shared by whatever falls on it."""

    def __init__(self) -> None:
        self._new = bytearray(MEMORY_CELLS)
        self._old = bytearray(MEMORY_CELLS)
        self._turns_at = 0.0

    def note(self, number: int, now: float) -> int:
        """It came; how often that was, this time counted. Rather too often than too seldom."""
        if now >= self._turns_at:
            is_long_ago = now >= self._turns_at + MEMORY_SECONDS
            self._old = bytearray(MEMORY_CELLS) if is_long_ago else self._new
            self._new = bytearray(MEMORY_CELLS)
            self._turns_at = now + MEMORY_SECONDS
        cells = (number % MEMORY_CELLS, (number // MEMORY_CELLS) % MEMORY_CELLS)
        times = min(self._new[cell] + self._old[cell] for cell in cells) + 1
        for cell in cells:
            self._new[cell] = min(255, self._new[cell] + 1)
        return times
