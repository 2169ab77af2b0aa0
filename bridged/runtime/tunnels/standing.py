"""Who may stay: connected peers are judged again when the rules change, and when a certificate ends.

Owned by a tunnel; all methods run in the event loop.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable
from typing import Final

from bridged.errors import PeerRefusedError
from bridged.protocol.session.states import SessionState
from bridged.protocol.session.tls_session import TlsSummary
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.sessions import Sessions
from bridged.supervision import SUPERVISOR, Timer
from bridged.tls.peer_check import valid_until
from bridged.units import PeerHandle, UnixSeconds

CLOCK_SECONDS: Final = 60.0
"""How often the wall clock is read while a certificate is about to end: somebody may set it."""
_STALE_ENTRIES_MIN: Final = 64
REVOKED_FAREWELL: Final = "AUTH_FAILED,this certificate has been revoked"
KICKED_FAREWELL: Final = "RESTART,disconnected by the operator; you may reconnect"
"""OpenVPN's word for "connect again": HALT and AUTH_FAILED end an OpenVPN client for good."""
REFUSED_FAREWELL: Final = "RESTART,your certificate is not accepted any more"


class Standing:
    """Judges connected peers by the present plan, and ends the sessions of those it refuses.

    The reason is `kicked` for a revoked certificate, else `auth_expired`.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._peers: dict[PeerHandle, tuple[TlsSummary, UnixSeconds]] = {}
        """What each peer showed, and when the first of those certificates ends."""
        self._ends: list[tuple[UnixSeconds, PeerHandle]] = []
        self._changed_at = float("-inf")
        self._timer: Timer | None = None

    def close(self) -> None:
        """Forget all peers."""
        self._peers.clear()
        self._arm()

    def note(self, link: PeerLink, summary: TlsSummary, seconds: float) -> None:
        """The peer was authenticated in a handshake that took `seconds`."""
        until = valid_until(summary)
        known = self._peers.get(link.handle)
        self._peers[link.handle] = summary, until
        if known is None or known[1] != until:
            heapq.heappush(self._ends, (until, link.handle))
            self._arm()
        if time.monotonic() - seconds < self._changed_at:
            # The handshake began under the old rules, and may have been judged by them.
            self._judge(link, summary)

    def forget(self, link: PeerLink) -> None:
        self._peers.pop(link.handle, None)
        if len(self._ends) > _STALE_ENTRIES_MIN + 2 * len(self._peers):
            self._ends = [(until, handle) for handle, (_, until) in self._peers.items()]
            heapq.heapify(self._ends)

    def recheck(self) -> int:
        """Judge every peer by the new plan. Returns how many sessions ended."""
        self._changed_at = time.monotonic()
        ended = 0
        for handle, (summary, _) in list(self._peers.items()):
            if handle in self._peers:
                ended += self._judge(self._sessions.links[handle], summary)
        return ended

    def kick(self, name: str) -> int:
        """End the sessions of `name`; it may connect again. Returns how many ended."""
        return self._end(self._sessions.links.named(name), "kicked", "by the operator", KICKED_FAREWELL)

    def _judge(self, link: PeerLink, summary: TlsSummary) -> int:
        judge = self._sessions.plan.judge_peer
        refusal = judge(summary) if judge is not None else None
        return self._refuse(link, refusal) if refusal is not None else 0

    def _refuse(self, link: PeerLink, refusal: PeerRefusedError) -> int:
        if refusal.code == "certificate_revoked":
            return self._end([link], "kicked", refusal.message, REVOKED_FAREWELL)
        return self._end([link], "auth_expired", refusal.message, REFUSED_FAREWELL)

    def _end(self, links: Iterable[PeerLink], reason: str, detail: str, farewell: str) -> int:
        ended = 0
        for link in links:
            if link.session.state is SessionState.ESTABLISHED:
                ended += 1
            link.close(reason, detail, farewell=farewell)
        self._sessions.rearm()
        return ended

    # --- time -------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._ends and self._is_stale(*self._ends[0]):
            heapq.heappop(self._ends)
        if self._ends:
            wait = min(max(self._ends[0][0] - time.time(), 0.0), CLOCK_SECONDS)
            self._timer = SUPERVISOR.after(
                "peer_standing", wait, self._handle_timer, self._sessions.plan.name
            )

    def _is_stale(self, until: UnixSeconds, handle: PeerHandle) -> bool:
        return handle not in self._peers or self._peers[handle][1] != until

    def _handle_timer(self) -> None:
        self._timer = None
        while self._ends and self._ends[0][0] <= time.time():
            until, handle = heapq.heappop(self._ends)
            if not self._is_stale(until, handle):
                link = self._sessions.links[handle]
                text = f"the certificate of {link.name}, or of a CA above it, has expired"
                self._refuse(link, PeerRefusedError("certificate_expired", text))
        self._arm()
