"""What remains of sessions that have ended: their cookies, and for a while their last packets.

Source: docs/protocol/control.md#4-2 and #5.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

USED_COOKIES_MAX: Final = 65_536
ENDED_MAX: Final = 1024
ENDED_SECONDS: Final = 10.0
LAST_PACKETS_REPEATED: Final = 3
"""How often a session's last packets are repeated: enough for a lost alert, too little for amplification."""

_Value = TypeVar("_Value")


class _Ended:
    __slots__ = ("left", "packets", "until")

    def __init__(self, packets: tuple[bytes, ...], until: float) -> None:
        self.packets = packets
        self.until = until
        self.left = LAST_PACKETS_REPEATED


class UsedCookies:
    """Remembers used cookies while they are valid, because a cookie opens only one session.

    `lifetime`: seconds for which a cookie is valid. Remembers USED_COOKIES_MAX cookies, and the last packets
    of ENDED_MAX sessions for ENDED_SECONDS; the oldest are dropped first.
    """

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._used: dict[bytes, float] = {}
        self._ended: dict[bytes, _Ended] = {}

    def __contains__(self, cookie: bytes) -> bool:
        return cookie in self._used

    def __len__(self) -> int:
        return len(self._used)

    def use(self, cookie: bytes, now: float) -> None:
        """Note that this cookie has opened a session."""
        _forget(self._used, USED_COOKIES_MAX - 1, lambda until: until <= now)
        self._used[cookie] = now + self.lifetime

    def note_end(self, cookie: bytes, packets: tuple[bytes, ...], now: float) -> None:
        """Note that this cookie's session has ended, and the last datagrams that it sent."""
        if packets:
            _forget(self._ended, ENDED_MAX - 1, lambda ended: ended.until <= now)
            self._ended[cookie] = _Ended(packets, now + ENDED_SECONDS)

    def last_packets(self, cookie: bytes, now: float) -> tuple[bytes, ...]:
        """The datagrams to repeat for a peer that missed the end of its session; usually none."""
        ended = self._ended.get(cookie)
        if ended is None:
            return ()
        if ended.until <= now or not ended.left:
            del self._ended[cookie]
            return ()
        ended.left -= 1
        return ended.packets


def _forget(records: dict[bytes, _Value], room: int, is_over: Callable[[_Value], bool]) -> None:
    """Drop the oldest records: those that are over, and those that exceed `room`."""
    while records:
        oldest = next(iter(records))
        if len(records) <= room and not is_over(records[oldest]):
            return
        del records[oldest]
