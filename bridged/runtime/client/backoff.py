"""How long a client waits before it calls again.

Source: docs/decisions/0008, 0043, 0045 and 0102.
Pure: callers pass `now` (monotonic seconds); `draw` gives numbers from 0 to 1.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

RETRY_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 60.0
"""Limit of the pauses that we choose."""
ASKED_SECONDS_MAX: Final = 300.0
"""Limit of the pauses that a server asks for."""
ROUNDS_BEFORE_BACKOFF: Final = 5
ASKED_JITTER: Final = 0.1
"""How much longer than asked a pause may be."""
_DOUBLINGS_MAX: Final = 16
_NOBODY_ASKED: Final = frozenset({"ping_timeout", "transport_closed", "renegotiation_failed"})
"""Reasons for the end of a connection after which the next call does not wait."""


def pause_after(failures: int, draw: Callable[[], float]) -> float:
    """Seconds to wait after so many failures in a row: between half and all of what doubles up to the limit.

    Clients that lost one server do not come back at the same moment.
    """
    doublings = min(max(failures - ROUNDS_BEFORE_BACKOFF, 0), _DOUBLINGS_MAX)
    return min(RETRY_SECONDS * 2.0**doublings, RETRY_SECONDS_MAX) * (1.0 - draw() / 2)


class Backoff:
    """`until`: no calls before that moment; in the past where there is no pause.

    Back off only after a refusal. What is missing after a round without an answer (name server, link, server)
    may appear at any moment.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self.until = 0.0
        self._draw = draw
        self._is_refused = False
        self._asked_until = 0.0
        self._refused_rounds = 0
        self._dismissals = 0
        self._is_final = False
        self._firm_until = 0.0
        self._held_until = 0.0

    def note_refusal(
        self, now: float, retry_after: float, *, is_final: bool = False, holds: bool = False
    ) -> None:
        """A server refused us in this round, and asks us to wait `retry_after` seconds.

        `is_final`: no news of the network ends that pause. `holds`: it begins now, not after the round.
        """
        self._is_refused = True
        self._is_final = self._is_final or is_final
        self._asked_until = max(self._asked_until, now + self._asked(retry_after))
        self._held_until = max(self._held_until, self._asked_until)
        if holds:
            self._pause_until(self._asked_until, is_final=self._is_final)

    def end_round(self, now: float) -> None:
        """All servers were called in vain."""
        self._refused_rounds = self._refused_rounds + 1 if self._is_refused else 0
        until = now
        if self._is_refused:
            until = max(now + pause_after(self._refused_rounds, self._draw), self._asked_until)
        self._pause_until(until, is_final=self._is_final)
        self._is_refused = self._is_final = False
        self._asked_until = 0.0

    def end_connection(
        self,
        now: float,
        reason: str,
        retry_after: float,
        *,
        is_final: bool = False,
        is_handed_over: bool = False,
    ) -> None:
        """A connection is over; `reason` as in `peer_disconnects_total`.

        `is_final`: as in `note_refusal`. `is_handed_over`: the server's successor waits for us.

        Where another machine uses our certificate, each reconnection disconnects it: the pause doubles.
        """
        is_short = is_handed_over or reason in _NOBODY_ASKED
        self._dismissals = self._dismissals + 1 if retry_after else 0
        asked = retry_after * 2.0 ** min(max(0, self._dismissals - 1), _DOUBLINGS_MAX)
        pause = 0.0 if is_short else pause_after(0, self._draw)
        asked = self._asked(asked)
        self._held_until = max(self._held_until, now + asked)
        self._pause_until(now + max(pause, asked), is_final=is_final)

    def note_connected(self) -> None:
        self._refused_rounds = 0
        self._is_refused = self._is_final = False
        self._asked_until = 0.0

    def wake(self) -> None:
        """Something changed that may let us through: end this pause, unless a refusal was final."""
        self.until = self._firm_until
        self._held_until = 0.0

    def wake_own(self) -> None:
        """As `wake`, but wait as long as a server asked for."""
        self.until = min(self.until, max(self._firm_until, self._held_until))

    def start_again(self) -> None:
        """Begin again with the shortest backoff, and forget final refusals."""
        self._refused_rounds = 0
        self._firm_until = 0.0
        self._is_final = False

    def _asked(self, seconds: float) -> float:
        """Never sooner than the server says, and not all clients at the same moment."""
        return min(seconds, ASKED_SECONDS_MAX) * (1.0 + ASKED_JITTER * self._draw())

    def _pause_until(self, until: float, *, is_final: bool) -> None:
        self.until = until
        self._firm_until = until if is_final else 0.0
