"""When to ping, and when to give the peer up.

Source: docs/protocol/data.md, section 5.1; control.md, 8.7.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from enum import Enum

from bridged.units import Seconds


class KeepaliveAction(Enum):
    """What `poll` asks for."""

    NONE = "none"
    SEND_PING = "send_ping"
    PEER_LOST = "peer_lost"
    """Nothing authenticated came for `restart` seconds: restart the connection or drop the peer."""


class Keepalive:
    """Timers of one peer. `ping`, `restart` in seconds; None or 0 turns a timer off.

    The clocks start with `now`, or with the first call that passes a time.
    """

    def __init__(self, ping: Seconds | None, restart: Seconds | None, now: float | None = None) -> None:
        self.ping = ping or None
        self.restart = restart or None
        self._sent = now
        self._received = now

    @property
    def last_received(self) -> float | None:
        """When an authenticated packet last came (or the clock was started)."""
        return self._received

    def set_intervals(self, ping: Seconds | None, restart: Seconds | None) -> None:
        """Take pushed intervals; the clocks go on."""
        self.ping = ping or None
        self.restart = restart or None

    def note_sent(self, now: float) -> None:
        """Something was sent to the peer on the data channel."""
        self._sent = now

    def note_received(self, now: float) -> None:
        """An authenticated data packet came from the peer (a ping counts)."""
        self._received = now

    def poll(self, now: float) -> KeepaliveAction:
        """What is to be done now. After SEND_PING the caller must `note_sent`."""
        if self._sent is None:
            self._sent = now
        if self._received is None:
            self._received = now
        if self.restart is not None and now - self._received >= self.restart:
            return KeepaliveAction.PEER_LOST
        if self.ping is not None and now - self._sent >= self.ping:
            return KeepaliveAction.SEND_PING
        return KeepaliveAction.NONE

    def next_deadline(self) -> float | None:
        """When to poll next; None where no timer runs."""
        deadlines = [
            since + interval
            for since, interval in ((self._sent, self.ping), (self._received, self.restart))
            if since is not None and interval is not None
        ]
        return min(deadlines, default=None)
