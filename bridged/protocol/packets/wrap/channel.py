"""The wrap of one session: gives packet ids to what is sent, and checks those received for replays.

Source: docs/protocol/control.md#2-8.
Pure: callers pass `now`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.replay import ReplayWindow
from bridged.protocol.packets.packet import ControlHeader
from bridged.protocol.packets.wrap.keys import MAX_PACKET_ID, OpenedControl, WrapKeys

WRAP_REPLAY_WINDOW: Final = 64
WRAP_REPLAY_SECONDS: Final = 15.0
_IDS_PER_MICROSECOND: Final = 16
"""All microseconds of a second stay below the 2^24 ids between two marks of early negotiation."""


def first_numbers(unix_time: float, first_packet_id: int) -> tuple[int, int]:
    """Time and first packet id of a wrap that begins at this moment, for `WrapChannel`.

    Both together are greater than those of every wrap that began before, also within the same second. A peer
    that keeps one replay window for all sessions that begin would take them for replays otherwise
    (decision 124).
    """
    seconds = int(unix_time)
    microseconds = int((unix_time - seconds) * 1_000_000)
    return seconds, first_packet_id + _IDS_PER_MICROSECOND * microseconds


class WrapChannel:
    """Wrap counter and replay window of one session under one set of keys.

    `packet_time` is the Unix time (seconds, 32 bits) that accompanies the counter, the same for the whole
    session. `next_packet_id` is 2 if a stateless answer has used 1 (control.md#4-2). Wrap each retransmission
    again: the same wrapped bytes must never be sent twice.
    """

    def __init__(self, keys: WrapKeys, packet_time: int, next_packet_id: int = 1) -> None:
        self.keys = keys
        self.packet_time = packet_time & 0xFFFFFFFF
        self.next_packet_id = next_packet_id
        self._replay = WrapReplayWindow()

    def wrap(self, header: ControlHeader, body: bytes) -> bytes:
        """Seal one packet under the next packet id.

        Raises:
            LocalProtocolError: the counter is used up (after 2^32 - 1 packets).
        """
        if not self.keys.has_packet_ids:
            return self.keys.seal(header, 0, 0, body)
        packet_id = self.next_packet_id
        if packet_id > MAX_PACKET_ID:
            raise LocalProtocolError("the packet ids of this wrap are used up")
        self.next_packet_id = packet_id + 1
        return self.keys.seal(header, packet_id, self.packet_time, body)

    def record(self, opened: OpenedControl, now: float) -> None:
        """Check and record the packet id of a packet that was opened with these keys.

        Raises:
            RemoteProtocolError: `replay`, `replay_too_old`.
        """
        if self.keys.has_packet_ids:
            reason = self._replay.accept(opened.packet_id, opened.packet_time, now)
            if reason is not None:
                raise RemoteProtocolError(reason)


class WrapReplayWindow:
    """Replay window over (time, id): 64 ids. Late ones are accepted for 15 s; a greater time restarts it."""

    __slots__ = ("_advances", "_time", "_window")

    def __init__(self) -> None:
        self._time = -1
        self._window = ReplayWindow(WRAP_REPLAY_WINDOW)
        # (highest id after an advance, when): shows since when a missing id is late. Each entry moved the
        # window by at least one, so 64 entries cover it.
        self._advances: deque[tuple[int, float]] = deque(maxlen=WRAP_REPLAY_WINDOW)

    def accept(self, packet_id: int, packet_time: int, now: float) -> str | None:
        """Record the id and return None, or return the drop reason."""
        if packet_id == 0:
            return "replay"
        if packet_time < self._time:
            return "replay_too_old"
        if packet_time > self._time:
            self._time = packet_time
            self._window = ReplayWindow(WRAP_REPLAY_WINDOW)
            self._advances.clear()
        reason = self._window.verdict(packet_id)
        if reason is not None:
            return reason
        if packet_id > self._window.highest:
            self._advances.append((packet_id, now))
        elif now - self._late_since(packet_id) > WRAP_REPLAY_SECONDS:
            return "replay_too_old"
        self._window.accept(packet_id)
        return None

    def _late_since(self, packet_id: int) -> float:
        index = bisect_right(self._advances, packet_id, key=lambda advance: advance[0])
        return self._advances[index][1]
