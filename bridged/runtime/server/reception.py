"""How a server treats strangers: answers, a waiting room, places for handshakes, last packets.

Source: docs/protocol/control.md#4-2 and #8-4; docs/decisions/0034.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from bridged.addresses import Endpoint
from bridged.dataplane.contract import ResetAnswers
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.client_wrap_key import UnwrappedKey
from bridged.protocol.packets.packet import HEADER_LENGTH
from bridged.protocol.packets.wrap import TlsCryptV2Keys
from bridged.protocol.strangers.cookie import COOKIE_SECRET_LENGTH, CookieJar
from bridged.protocol.strangers.key_memory import KeyMemory
from bridged.protocol.strangers.listener import Listener, NewSession, ResetAnswer
from bridged.protocol.strangers.reset_limit import ResetLimit
from bridged.protocol.strangers.used_cookies import UsedCookies
from bridged.runtime.server.admission import Newcomer, Places, WaitingRoom
from bridged.runtime.server.key_checks import KeyChecks
from bridged.runtime.server.refused_keys import RefusedKeys
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR, Timer
from bridged.units import MonotonicSeconds, PeerHandle, UnixSeconds

LOOK_SECONDS: Final = 0.1
"""While all places are taken: pause between two looks for one that could be freed."""


class HandshakeOwner(Protocol):
    """The tunnel, as its reception sees it."""

    def open_session(self, newcomer: Newcomer) -> PeerLink:
        """Open a link for a newcomer, and give its session the packets so far."""

    def send_stranger(self, datagram: bytes, endpoint: Endpoint) -> None: ...

    def end_stranger(self, handle: PeerHandle) -> None:
        """End this link, which gives its place to another one; `leave` will be called for it."""

    def note_refused_key(self, source: Endpoint, detail: str) -> None:
        """Tell of a client whose tls-crypt-v2 key is refused."""

    def report_keys(self, event: str, reason: str) -> None:
        """Tell that tls-crypt-v2 keys cannot be checked as they should."""

    def count_drop(self, code: str) -> None:
        """Count a packet of a stranger that is dropped."""


class Reception:
    """The strangers of one listening socket. Runs in the event loop.

    `monotonic`, `unix_now`: the clocks. Bounded by `Places`, `WaitingRoom`, `UsedCookies`, `KeyMemory`,
    `KeyChecks` and `ResetLimit`.
    """

    def __init__(
        self,
        plan: TunnelPlan,
        owner: HandshakeOwner,
        monotonic: Callable[[], MonotonicSeconds],
        unix_now: Callable[[], UnixSeconds],
    ) -> None:
        self._owner = owner
        self._monotonic = monotonic
        self._unix_now = unix_now
        self._secret = secrets.token_bytes(COOKIE_SECRET_LENGTH)
        self._limit = ResetLimit()
        self._memory = KeyMemory()
        self.places = Places()
        self.waiting = WaitingRoom(secrets.randbelow)
        self._cookies = UsedCookies(0.0)
        self._name = plan.name
        self._timer: Timer | None = None
        self._is_soon = False
        self._looked_at = -LOOK_SECONDS
        self._is_closed = False
        self._checks = self._new_checks(())
        self._refused = RefusedKeys(None)
        self.apply(plan)

    def apply(self, plan: TunnelPlan) -> None:
        """Use wrap and times of another plan. Cookies that were sent stay valid."""
        jar = CookieJar(self._secret, int(plan.session.hand_window))
        self._cookies.lifetime = jar.lifetime
        admission = plan.admission
        if (admission.refused_keys, admission.key_seconds) != (self._refused.path, self._refused.seconds):
            report = partial(self._owner.report_keys, "refused_keys_unusable")
            self._refused = RefusedKeys(admission.refused_keys, admission.key_seconds, report)
        if admission.key_command != self._checks.command:
            self._checks.close()
            self._checks = self._new_checks(admission.key_command)
        self._listener = Listener(plan.wrap, jar, self._limit, self._memory)
        self.answers = ResetAnswers(plan.wrap, self._secret, int(plan.session.hand_window))

    def close(self) -> None:
        """Admit nobody any more."""
        self._is_closed = True
        self._checks.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def receive(self, datagram: bytes, source: Endpoint) -> None:
        """A control packet that belongs to no known session.

        Raises:
            RemoteProtocolError: it is to be dropped and counted.
        """
        if self._is_closed:
            # An answer would bind the client to a session that is gone in a moment, until its handshake times
            # out. Without one it asks again, and reaches us after the next start.
            raise RemoteProtocolError("not_ready", "this end stops")
        now = self._monotonic()
        session_id = datagram[1:HEADER_LENGTH]
        proven = self.waiting.cookie_of(source, session_id) or self._checks.cookie_of(source, session_id)
        made = self._listener.receive(datagram, source, now, self._unix_now(), proven)
        if isinstance(made, ResetAnswer):
            self._owner.send_stranger(made.datagram, source)
        elif isinstance(made, NewSession):
            self._take_in(made, source, now)

    def note_progress(self, link: PeerLink) -> None:
        """A packet of this link was received."""
        if link.handle in self.places:
            proof, count = link.session.progress
            self.places.note(link.handle, proof, count, self._monotonic())

    def leave(self, handle: PeerHandle) -> None:
        """It is identified, or gone. Harmless where it has no place."""
        if handle in self.places:
            self.places.leave(handle)
            if self.waiting.has_ready:
                self._admit_in(0.0)

    def note_end(self, link: PeerLink) -> None:
        """The session of this link has ended."""
        self._cookies.note_end(link.session.local_session_id, tuple(link.last_packets), self._monotonic())

    def refresh(self) -> None:
        """Before `objection` is asked: read the list of refused keys if it has changed."""
        self._refused.refresh()

    def objection(self, key: UnwrappedKey) -> str | None:
        """Why a client with this key may not stay, as of the last `refresh`; None: it may."""
        return "this client's tls-crypt-v2 key is refused" if self._refused.is_listed(key) else None

    def _take_in(self, made: NewSession, source: Endpoint, now: float) -> None:
        if made.local_session_id in self._cookies:
            for packet in self._cookies.last_packets(made.local_session_id, now):
                self._owner.send_stranger(packet, source)
            raise RemoteProtocolError("cookie_mismatch", "the session of this cookie is over")
        keys = made.opened.keys
        key = keys.client_key if isinstance(keys, TlsCryptV2Keys) else None
        if key is not None and not self._may_pass(key, made, source, now):
            return
        self.waiting.take_in(made, source, now)
        self._admit()

    def _may_pass(self, key: UnwrappedKey, made: NewSession, source: Endpoint, now: float) -> bool:
        """Whether this packet may go on now; if not, the operator's program is being asked."""
        try:
            self._refused.check(key, self._unix_now())
            return self._checks.may_pass(key, made, source, now)
        except RemoteProtocolError as error:
            if error.code == "wrap_key_refused":
                self._owner.note_refused_key(source, str(error))
            raise

    def _take_checked(self, made: NewSession, source: Endpoint) -> None:
        """A packet that was held up until its key's verdict."""
        try:
            if not self._is_closed:
                self._take_in(made, source, self._monotonic())
        except RemoteProtocolError as error:
            self._owner.count_drop(error.code)

    def _new_checks(self, command: tuple[str, ...]) -> KeyChecks:
        report = partial(self._owner.report_keys, "wrap_keys_unchecked")
        return KeyChecks(command, self._name, self._take_checked, report, self._monotonic)

    def count_waiting(self) -> int:
        """How many wait now, without those who gave up while nobody else came."""
        self.waiting.expire(self._monotonic())
        return len(self.waiting)

    def _admit(self) -> None:
        """Give places to those whose turn it is. While none is free, look again in a moment."""
        if self._is_closed:
            return
        now = self._monotonic()
        self.waiting.expire(now)
        while (newcomer := self.waiting.first()) is not None:
            if not self.places.has_room and not self._make_place(newcomer, now):
                break
            self.waiting.remove(newcomer)
            self._cookies.use(newcomer.cookie, now)
            link = self._owner.open_session(newcomer)
            if link.session.is_live:
                self.places.enter(link.handle, newcomer.source, now)
                self.note_progress(link)
        if newcomer is not None:
            self._admit_in(LOOK_SECONDS)

    def _admit_in(self, seconds: float) -> None:
        if self._is_closed or (self._timer is not None and (seconds or self._is_soon)):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._is_soon = not seconds
        self._timer = SUPERVISOR.after("admission", seconds, self._admit_now, self._name)

    def _admit_now(self) -> None:
        self._timer = None
        self._admit()

    def _make_place(self, newcomer: Newcomer, now: float) -> bool:
        if now - self._looked_at < LOOK_SECONDS:
            # This looks at all places, so it must not happen for each packet of each newcomer.
            return False
        handle = self.places.who_gives_way(newcomer.source, now)
        if handle is None:
            self._looked_at = now
            return False
        self.places.leave(handle)
        self._owner.end_stranger(handle)
        return True
