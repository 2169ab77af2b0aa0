"""Sliding replay window over 32-bit packet ids.

Source: docs/protocol/data.md#3-2 (and control.md#2-8, whose times `wrap.channel` adds).
Pure: no clock. The window size is local; a peer cannot see it.
"""

from __future__ import annotations

from typing import Final

from bridged.errors import ConfigurationError

REPLAY_WINDOW_DEFAULT: Final = 64
REPLAY_WINDOW_MAX: Final = 65536


class ReplayWindow:
    """The ids seen under one key in one direction: the highest, and a bit for each of the last `size`.

    Ask only once the packet is authenticated. Size 0 accepts rising ids only.
    Memory: at most `size` bits.

    Raises:
        ConfigurationError: size outside 0..65536.
    """

    __slots__ = ("_highest", "_mask", "_seen", "size")

    def __init__(self, size: int = REPLAY_WINDOW_DEFAULT) -> None:
        if not 0 <= size <= REPLAY_WINDOW_MAX:
            raise ConfigurationError(
                f"a replay window of {size} packets is not in 0..{REPLAY_WINDOW_MAX}", code="replay_window"
            )
        self.size = size
        self._mask = (1 << size) - 1
        self._highest = 0
        self._seen = 0  # bit i: id `highest - i` was accepted

    def begin_behind(self, highest: int) -> None:
        """As if all ids up to this one had been accepted."""
        self._highest = highest
        self._seen = self._mask

    @property
    def highest(self) -> int:
        """The highest id accepted; 0 before the first."""
        return self._highest

    def verdict(self, packet_id: int) -> str | None:
        """None if the id can be accepted, else the drop reason: `replay` or `replay_too_old`.

        Changes nothing. Id 0 is never valid and counts as `replay`.
        """
        ahead = packet_id - self._highest
        if ahead > 0:
            return None
        if packet_id <= 0 or ahead == 0:
            return "replay"
        if -ahead >= self.size:
            return "replay_too_old"
        return "replay" if self._seen >> -ahead & 1 else None

    def check(self, packet_id: int) -> bool:
        """Whether the id can be accepted. Changes nothing."""
        return self.verdict(packet_id) is None

    def accept(self, packet_id: int) -> bool:
        """Record the id. If `verdict` objects, record nothing and return False."""
        ahead = packet_id - self._highest
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & self._mask if ahead < self.size else 1 & self._mask
            self._highest = packet_id
            return True
        if self.verdict(packet_id) is not None:
            return False
        self._seen |= 1 << -ahead
        return True

    def accept_next(self, count: int) -> None:
        """Record the `count` ids after the highest one, as `accept` would one by one."""
        self._highest += count
        if count >= self.size:
            self._seen = self._mask
        else:
            self._seen = ((self._seen << count) | ((1 << count) - 1)) & self._mask
