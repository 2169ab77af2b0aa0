"""Asks whether the server still has our session, after somebody claimed that it has not.

Source: docs/decisions/0036. The notice can be forged, so it only makes us ask, on the data channel,
where nobody else can answer. Silence does not end the session either: it begins another one beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridged.dataplane.contract import DataPlane
from bridged.protocol.packets.occ import OccMessage, OccType, serialize_occ
from bridged.runtime.tunnels.link import PeerLink
from bridged.supervision import SUPERVISOR, Timer

ASK_SECONDS: Final = 0.3
QUESTIONS: Final = 3
"""Questions at that pause. Without an answer after the last one, the server counts as silent."""
PAUSE_SECONDS: Final = 2.0
PAUSE_SECONDS_MAX: Final = 60.0
"""After a wrong notice, further ones are ignored for this long; the time doubles with each."""
PATIENCE_SECONDS: Final = 600.0
"""After this long without a notice, the shortest pause applies again."""

_QUESTION: Final = serialize_occ(OccMessage(OccType.REQUEST))


class Probe:
    """Asks on behalf of one client. `on_silence` gets the link whose server does not answer.

    `clock` gives monotonic seconds; `subject` is the tunnel's name.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        on_silence: Callable[[PeerLink], None],
        clock: Callable[[], float],
        subject: str,
    ) -> None:
        self._dataplane = dataplane
        self._on_silence = on_silence
        self._clock = clock
        self._subject = subject
        self._link: PeerLink | None = None
        self._heard = 0
        self._asked = 0
        self._pause = PAUSE_SECONDS
        self._noticed_at = 0.0
        self._deaf_until = 0.0
        self._timer: Timer | None = None

    def notice(self, link: PeerLink) -> None:
        """Somebody claims that the server does not know this link's session."""
        now = self._clock()
        if now - self._noticed_at > PATIENCE_SECONDS:
            self._pause = PAUSE_SECONDS
        self._noticed_at = now
        if self._link is not None or now < self._deaf_until or not link.is_attached:
            return
        self._link = link
        self._heard = self._received()
        self._asked = 0
        self._ask()

    def close(self) -> None:
        """Stop asking. Idempotent."""
        self._link = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask(self) -> None:
        self._timer = None
        link = self._link
        if link is None or not link.is_attached:
            self.close()
        elif self._asked and self._received() > self._heard:
            self._rest()
        elif self._asked < QUESTIONS:
            self._asked += 1
            link.send_payload(_QUESTION)
            self._timer = SUPERVISOR.after("probe", ASK_SECONDS, self._ask, self._subject)
        else:
            # If the next session fails as well, further notices have to wait, too.
            self._rest()
            self._on_silence(link)

    def _rest(self) -> None:
        self.close()
        self._deaf_until = self._clock() + self._pause
        self._pause = min(2 * self._pause, PAUSE_SECONDS_MAX)

    def _received(self) -> int:
        """Number of authenticated packets so far."""
        peers = self._dataplane.snapshot().peers
        return sum(peer.counters.wire_datagrams.get("receive", 0) for peer in peers)
