"""Why a client is not connected, in words: the last reason given, and how long nobody has answered.

Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import Endpoint
from bridged.protocol.session.timers import NEVER

SILENT_SECONDS: Final = 5.0
"""Silence that is worth a log line."""
SAID_AGAIN_SECONDS: Final = (60.0, 600.0, 3600.0)
"""Pauses between further log lines; the last one repeats."""
ENDPOINTS_SHOWN: Final = 6
ENDPOINTS_MAX: Final = 1024


class Outage:
    """What happened since the last connection ended."""

    def __init__(self, now: float) -> None:
        self.begin(now)

    def begin(self, now: float) -> None:
        """A connection has ended: forget the outage before."""
        self._count_from(now)
        self._reason = ""
        self._rank = 0
        self._ever: set[Endpoint] = set()
        self._refusals: set[tuple[Endpoint, str]] = set()
        self._called: dict[Endpoint, str] = {}

    def note_called(self, endpoint: Endpoint, now: float) -> bool:
        """Note a call; True for the first one to this endpoint. Silence counts from the first of all."""
        if not self._ever:
            self._count_from(now)
        self._called.setdefault(endpoint, "")
        is_first = endpoint not in self._ever
        if len(self._ever) >= ENDPOINTS_MAX:
            self._ever.clear()
        self._ever.add(endpoint)
        return is_first

    def note_answer(self, now: float) -> None:
        """A server answered; silence is counted from now."""
        self._count_from(now)
        self._called.clear()

    def _count_from(self, now: float) -> None:
        """Silence begins."""
        self._heard_at = now
        self._said = 0
        self._say_at = now + SILENT_SECONDS

    def note_refused(self, endpoint: Endpoint, words: str) -> bool:
        """The network reports no route, or nobody listening. True where that is new."""
        is_new = self._called.get(endpoint) != words and (endpoint, words) not in self._refusals
        if len(self._refusals) >= ENDPOINTS_MAX:
            self._refusals.clear()
        self._refusals.add((endpoint, words))
        self._called[endpoint] = words
        return is_new

    def note_reason(self, words: str) -> None:
        """A server gave a reason, or its handshake showed one."""
        self._note(3, words)

    def note_nameless(self, words: str) -> None:
        """A name cannot be looked up."""
        self._note(2, words)

    def note_timeout(self, words: str) -> None:
        """A server fell silent, or never said anything."""
        self._note(1, words)

    def _note(self, rank: int, words: str) -> None:
        """Keep the reason that explains most; among equals, the newest."""
        if rank >= self._rank:
            self._rank, self._reason = rank, words

    def words(self, now: float) -> str | None:
        """One line for the status; None: nothing to report yet."""
        silent = now - self._heard_at
        if silent >= SILENT_SECONDS and self._called:
            silence = f"no answer for {int(silent)} s from {self._where()}"
        elif any(self._called.values()):
            silence = f"no answer from {self._where()}"
        else:
            return self._reason or None
        return f"{self._reason}; {silence}" if self._reason else silence

    def report(self, now: float) -> dict[str, str | int] | None:
        """Fields of a `no_answer` log line that is due now, or None. Each line is given once."""
        if now < self._say_at or not self._called:
            return None
        pause = SAID_AGAIN_SECONDS[min(self._said, len(SAID_AGAIN_SECONDS) - 1)]
        self._said += 1
        self._say_at = now + pause
        fields: dict[str, str | int] = {"seconds": int(now - self._heard_at), "servers": self._where()}
        if self._reason:
            fields["last_reason"] = self._reason
        return fields

    @property
    def next_report(self) -> float:
        """When `report` will have a line; NEVER while nobody has been called."""
        return self._say_at if self._called else NEVER

    def _where(self) -> str:
        shown = [
            f"{endpoint} ({words})" if words else str(endpoint)
            for endpoint, words in list(self._called.items())[:ENDPOINTS_SHOWN]
        ]
        more = len(self._called) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
