"""How long a client waits before it calls again.

Source: docs/decisions/0008, 0043 and 0045.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from typing import Final

RETRY_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 300.0
ROUNDS_BEFORE_BACKOFF: Final = 5
_DOUBLINGS_MAX: Final = 16
_NOBODY_ASKED: Final = frozenset({"ping_timeout", "transport_closed", "renegotiation_failed"})
"""Reasons for the end of a connection after which the next call does not wait."""


class Backoff:
    """`until`: no calls before that moment; in the past where there is no pause.

    Back off only after a refusal. What is missing after a round without an answer (name server, link, server)
    may appear at any moment.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self._is_refused = False
        self._retry_after = 0.0
        self._refused_rounds = 0
        self._dismissals = 0
        self._is_final = False
        self._firm_until = 0.0

    def note_refusal(self, retry_after: float, *, is_final: bool = False) -> None:
        """A server refused us in this round, and asks us to wait `retry_after` seconds.

        `is_final`: no news of the network ends that pause.
        """
        self._is_refused = True
        self._is_final = self._is_final or is_final
        self._retry_after = max(self._retry_after, retry_after)

    def end_round(self, now: float) -> None:
        """All servers were called in vain."""
        self._refused_rounds = self._refused_rounds + 1 if self._is_refused else 0
        over = self._refused_rounds - ROUNDS_BEFORE_BACKOFF
        seconds = RETRY_SECONDS * 2.0 ** min(max(over, 0), _DOUBLINGS_MAX)
        pause = max(seconds, self._retry_after) if self._is_refused else 0.0
        self.until = now + min(pause, RETRY_SECONDS_MAX)
        self._firm_until = self.until if self._is_final else 0.0
        self._is_refused = self._is_final = False
        self._retry_after = 0.0

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
        pause = 0.0 if is_handed_over or reason in _NOBODY_ASKED else RETRY_SECONDS
        self._dismissals = self._dismissals + 1 if retry_after else 0
        asked = retry_after * 2.0 ** min(max(0, self._dismissals - 1), _DOUBLINGS_MAX)
        self.until = now + min(max(pause, asked), RETRY_SECONDS_MAX)
        self._firm_until = self.until if is_final else 0.0

    def note_connected(self) -> None:
        self._refused_rounds = 0
        self._is_refused = self._is_final = False
        self._retry_after = 0.0

    def wake(self) -> None:
        """Something changed that may let us through: end this pause, unless a refusal was final."""
        self.until = self._firm_until

    def start_again(self) -> None:
        """Begin again with the shortest backoff, and forget final refusals."""
        self._refused_rounds = 0
        self._firm_until = 0.0
        self._is_final = False
