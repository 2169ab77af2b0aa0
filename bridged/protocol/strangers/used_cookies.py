"""What remains of sessions that have ended: their cookies, and for a while their last packets.

Source: docs/protocol/control.md#4-2 and #5.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

USED_COOKIES_MAX: Final = 65_536
TOMBSTONES_MAX: Final = 1024
TOMBSTONE_SECONDS: Final = 10.0
LAST_WORDS_REPEATED: Final = 3
"""How often a session's last packets are repeated: enough for a lost alert, too little for amplification."""

_Value = TypeVar("_Value")


class _Tombstone:
    __slots__ = ("left", "until", "words")

    def __init__(self, words: tuple[bytes, ...], until: float) -> None:
        self.words = words
        self.until = until
        self.left = LAST_WORDS_REPEATED


class UsedCookies:
    """Remembers used cookies while they are valid, because a cookie opens only one session.

    `lifetime`: seconds for which a cookie is valid. Remembers USED_COOKIES_MAX cookies, and the last packets
    of TOMBSTONES_MAX sessions for TOMBSTONE_SECONDS; the oldest are dropped first.
    """

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._used: dict[bytes, float] = {}
        self._tombstones: dict[bytes, _Tombstone] = {}

    def __contains__(self, cookie: bytes) -> bool:
        return cookie in self._used

    def __len__(self) -> int:
        return len(self._used)

    def use(self, cookie: bytes, now: float) -> None:
        """Note that this cookie has opened a session."""
        _forget(self._used, USED_COOKIES_MAX - 1, lambda until: until <= now)
        self._used[cookie] = now + self.lifetime

    def bury(self, cookie: bytes, words: tuple[bytes, ...], now: float) -> None:
        """Note that this cookie's session has ended, and the last datagrams that it sent."""
        if words:
            _forget(self._tombstones, TOMBSTONES_MAX - 1, lambda tombstone: tombstone.until <= now)
            self._tombstones[cookie] = _Tombstone(words, now + TOMBSTONE_SECONDS)

    def last_words(self, cookie: bytes, now: float) -> tuple[bytes, ...]:
        """The datagrams to repeat for a peer that missed the end of its session; usually none."""
        tombstone = self._tombstones.get(cookie)
        if tombstone is None:
            return ()
        if tombstone.until <= now or not tombstone.left:
            del self._tombstones[cookie]
            return ()
        tombstone.left -= 1
        return tombstone.words


def _forget(records: dict[bytes, _Value], room: int, is_over: Callable[[_Value], bool]) -> None:
    """Drop the oldest records: those that are over, and those that exceed `room`."""
    while records:
        oldest = next(iter(records))
        if len(records) <= room and not is_over(records[oldest]):
            return
        del records[oldest]
