"""One attempt of a client to reach a server: its session, its socket, and how far it came.

Source: docs/decisions/0043.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.runtime.client.call_stream import Through
from bridged.runtime.client.remote_order import NEXT_REMOTE_SECONDS, Candidate
from bridged.runtime.tunnels.link import PeerLink

KNOCK_SECONDS: Final = 1.0
"""Pause between repeats of a reset that nobody has answered, so that a server that appears is found."""
KNOCKS: Final = 3
"""Repeats at that pause; later ones follow the session's own timer, until the call is over."""
CALL_SECONDS: Final = 10.0
"""How long a call waits for its first answer. New calls begin earlier."""
PATIENCE_DOUBLINGS_MAX: Final = 4


@dataclass(slots=True, eq=False)
class Call:
    """`heard_at`: when the server was last heard (None: never). `is_refused`: the network refused it.

    `stalls`: how often a server at this endpoint answered and then fell silent, in this outage. Times are
    monotonic seconds.
    """

    candidate: Candidate
    link: PeerLink
    socket: Through
    began: float
    stalls: int = 0
    heard_at: float | None = None
    is_refused: bool = False
    knocked: int = 0

    @property
    def is_answered(self) -> bool:
        return self.heard_at is not None

    @property
    def patience(self) -> float:
        """Seconds of silence after which other servers are called as well.

        It grows with each stall, so that a server which refuses by silence is not called all the time.
        """
        return NEXT_REMOTE_SECONDS * 2.0 ** min(self.stalls, PATIENCE_DOUBLINGS_MAX)

    def waits_until(self) -> float:
        """When other servers may be called."""
        if self.heard_at is None or self.is_refused:
            return self.began
        return self.heard_at + self.patience

    def is_given_up(self, now: float) -> bool:
        """The server was silent for so long that it is called again: it may have forgotten this session.

        Twice the patience, because a busy server answers the first packet and then lets us wait.
        """
        return self.is_refused or self.heard_at is None or now >= self.heard_at + 2 * self.patience

    def next_deadline(self) -> float:
        """For a call without an answer: when to repeat the reset, or when the call is over."""
        if self.knocked < KNOCKS:
            return self.began + KNOCK_SECONDS * (self.knocked + 1)
        return self.began + CALL_SECONDS
