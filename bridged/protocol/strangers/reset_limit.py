"""Which hard resets are answered. Their source addresses may be forged, and the answers go there.

Source: docs/decisions/0035.
Pure: callers pass `now` (monotonic seconds). The native twin is native/core/src/resets.rs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from bridged.addresses import Endpoint, network_of

FIRST_BURST: Final = 2048.0
FIRST_PER_SECOND: Final = 4096.0
"""Tokens for answers to networks that are within their share."""
REPEAT_BURST: Final = 1024.0
REPEAT_PER_SECOND: Final = 2048.0
"""Tokens for repeated resets: a client repeats its reset, a flood of forged ones rarely does."""
BEYOND_BURST: Final = 128.0
BEYOND_PER_SECOND: Final = 256.0
"""Tokens for answers beyond a network's share. Chance decides who gets one."""
ONCE_BURST: Final = 256.0
ONCE_PER_SECOND: Final = 256.0
"""Tokens for resets that somebody has to remember (tls-crypt-v2 of OpenVPN 2.5)."""
ONCE_REPEAT_BURST: Final = 256.0
ONCE_REPEAT_PER_SECOND: Final = 512.0
KEY_REPEATS_MAX: Final = 8
KEY_BURST: Final = 16.0
KEY_PER_SECOND: Final = 16.0
"""Resets of one session whose key is opened: so many, and beyond that tokens. A captured reset comes again
and again from ever new addresses, and to open its key takes longer than all else here."""
CALM: Final = (1024.0, 512.0)
PRESSED: Final = (8.0, 2.0)
"""Burst and answers a second of one network. In calm times that suffices for a thousand clients behind one
address. Once half of FIRST_BURST is used, each network gets a little."""
NETWORKS_REMEMBERED: Final = 4096
MEMORY_SECONDS: Final = 2.2
"""A reset is remembered for one to two times this long: OpenVPN repeats it after 2 s, bridged after 1 s."""
MEMORY_CELLS: Final = 1 << 20
REPEATS_MAX: Final = 3
"""No client repeats a reset more often."""


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
    """Decides whether a hard reset is answered.

    Each network (/24, /64) has a share. Beyond it, and beyond the limit for all, chance decides: whoever
    comes while there is a token gets an answer. Repeated resets have tokens of their own: a client repeats
    its reset, a flood from ever new sources does not.
    Holds NETWORKS_REMEMBERED networks (the one unheard for longest is dropped) and four tables of
    MEMORY_CELLS bytes.
    """

    def __init__(self) -> None:
        self._first = _Bucket(FIRST_BURST, 0.0)
        self._repeat = _Bucket(REPEAT_BURST, 0.0)
        self._beyond = _Bucket(BEYOND_BURST, 0.0)
        self._once = _Bucket(ONCE_BURST, 0.0)
        self._once_repeat = _Bucket(ONCE_REPEAT_BURST, 0.0)
        self._networks: dict[bytes, _Bucket] = {}
        self._memory = _Memory()
        self._keys = _Bucket(KEY_BURST, 0.0)
        self._key_memory = _Memory()

    def allows_key(self, session_id: bytes, now: float) -> bool:
        """Whether to open the key that a reset of this session brings, whoever sent it."""
        times = self._key_memory.note((hash(session_id), hash((session_id,))), now)
        return times <= KEY_REPEATS_MAX or self._keys.take(now, KEY_BURST, KEY_PER_SECOND)

    def allows(self, source: Endpoint, session_id: bytes, now: float) -> bool:
        """Take a token for an answer; False if there is none for this reset."""
        times = self._note(source, session_id, now)
        if times > REPEATS_MAX:
            return False
        if times > 1 and self._repeat.take(now, REPEAT_BURST, REPEAT_PER_SECOND):
            return True
        share = CALM if self._first.has(now, FIRST_BURST, FIRST_PER_SECOND) > FIRST_BURST / 2 else PRESSED
        if self._network(network_of(source.host), now).take(now, *share):
            return self._first.take(now, FIRST_BURST, FIRST_PER_SECOND)
        return self._beyond.take(now, BEYOND_BURST, BEYOND_PER_SECOND)

    def allows_once(self, source: Endpoint, session_id: bytes, now: float) -> bool:
        """The same for a reset whose answer costs memory: few, and rather a repeated one.

        A stranger who has captured one sends it from ever new addresses.
        """
        times = self._note(source, session_id, now)
        if times > REPEATS_MAX:
            return False
        if times > 1 and self._once_repeat.take(now, ONCE_REPEAT_BURST, ONCE_REPEAT_PER_SECOND):
            return True
        share = CALM if self._once.has(now, ONCE_BURST, ONCE_PER_SECOND) > ONCE_BURST / 2 else PRESSED
        is_within = self._network(network_of(source.host), now).take(now, *share)
        return is_within and self._once.take(now, ONCE_BURST, ONCE_PER_SECOND)

    def _note(self, source: Endpoint, session_id: bytes, now: float) -> int:
        # Two numbers: on 32-bit machines one has too few bits for both tables.
        numbers = hash((source.host, source.port, session_id)), hash((session_id, source.port, source.host))
        return self._memory.note(numbers, now)

    def _network(self, network: bytes, now: float) -> _Bucket:
        bucket = self._networks.pop(network, None)
        if bucket is None:
            bucket = _Bucket(CALM[0], now)
            if len(self._networks) >= NETWORKS_REMEMBERED:
                del self._networks[next(iter(self._networks))]
        self._networks[network] = bucket
        return bucket


class _Memory:
    """Counts how often something came lately, in two tables of cells that are shared by chance."""

    def __init__(self) -> None:
        # Made with the first occurrence: most tunnels have none of some kind.
        self._new = self._old = bytearray()
        self._turns_at = -math.inf

    def note(self, numbers: tuple[int, int], now: float) -> int:
        """Count this occurrence. Returns the number of recent ones: at least the true number, rarely more."""
        if now >= self._turns_at:
            is_long_ago = now >= self._turns_at + MEMORY_SECONDS
            self._old = bytearray(MEMORY_CELLS) if is_long_ago else self._new
            self._new = bytearray(MEMORY_CELLS)
            self._turns_at = now + MEMORY_SECONDS
        new, old = self._new, self._old
        times = 255
        for number in numbers:
            cell = number % MEMORY_CELLS
            count = new[cell]
            times = min(times, count + old[cell])
            if count < 255:
                new[cell] = count + 1
        return times + 1
