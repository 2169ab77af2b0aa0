"""One attempt of a client to reach a server: its session, its socket, and how far it came.

Source: docs/decisions/0043.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.runtime.client.call_socket import CallSocket
from bridged.runtime.client.remote_order import NEXT_REMOTE_SECONDS, Candidate
from bridged.runtime.tunnels.link import PeerLink

KNOCK_SECONDS: Final = 1.0
"""A reset that nobody has answered is repeated so often: a server that appears is found."""
KNOCKS: Final = 3
"""So many times; then as the session does it, until the call is over."""
CALL_SECONDS: Final = 10.0
"""A call that nobody has answered is over after so long. New ones begin before."""
PATIENCE_DOUBLINGS_MAX: Final = 4


@dataclass(slots=True, eq=False)
class Call:
    """`heard_at`: when the server was last heard (None: never). `is_refused`: by the network.

    `stalls`: how often a server at this endpoint has answered and then fallen silent, in this outage.
    """

    candidate: Candidate
    link: PeerLink
    socket: CallSocket
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
        """Seconds for which the server may be silent before others are called as well.

        It grows with each stall: a server that refuses us by silence is not asked again and again.
        """
        return NEXT_REMOTE_SECONDS * 2.0 ** min(self.stalls, PATIENCE_DOUBLINGS_MAX)

    def waits_until(self) -> float:
        """Until then nobody else is called."""
        if self.heard_at is None or self.is_refused:
            return self.began
        return self.heard_at + self.patience

    def is_given_up(self, now: float) -> bool:
        """Silent for so long that the same server is called again: it may have forgotten us.

        Twice the patience: a server with many clients at once answers the first packet and lets us wait.
        """
        return self.is_refused or self.heard_at is None or now >= self.heard_at + 2 * self.patience

    def next_deadline(self) -> float:
        """Of a call that is not answered: when to knock again, or that it is over."""
        if self.knocked < KNOCKS:
            return self.began + KNOCK_SECONDS * (self.knocked + 1)
        return self.began + CALL_SECONDS
