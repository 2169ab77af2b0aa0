"""Asks a server's clients for user name and password, and says who may come in.

Checks run beside the event loop (`login_checks`). What strangers cause is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from bridged.configuration.access import Authentication
from bridged.endings import take_every_step
from bridged.protocol.session.events import Authenticated, ChallengeAnswered, LoginOffered
from bridged.runtime.server.auth_token import is_token
from bridged.runtime.server.login_attempts import LoginAttempts
from bridged.runtime.server.login_checks import (
    BUSY,
    CHALLENGE_SECONDS,
    CODE_QUESTION,
    EXPIRED,
    WRONG,
    LoginChecks,
    LoginVerdict,
    Offer,
)
from bridged.runtime.server.password_file import User, is_user_name
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.runtime.tunnels.sessions import Sessions
from bridged.supervision import SUPERVISOR
from bridged.units import PeerHandle

WAITING_MAX: Final = 512
PATIENCE_SECONDS: Final = 5.0
"""After this long a client is told that its login takes longer (AUTH_PENDING)."""
TOO_OFTEN: Final = "too many wrong passwords; wait a minute"
MISSING: Final = "a user name and a password are needed (auth-user-pass)"


class LoginOwner(Protocol):
    """Who lets clients in."""

    def let_in(self, link: PeerLink, name: str, token: str | None) -> None:
        """The peer is welcome. `name` is empty where its certificate names it."""


class Authenticator:
    """Checks the logins of one tunnel by the present plan's `authentication`."""

    def __init__(self, sessions: Sessions, records: PeerRecords, owner: LoginOwner) -> None:
        self._sessions = sessions
        self._records = records
        self._owner = owner
        self._attempts = LoginAttempts()
        self._checks = LoginChecks(sessions, self._report)
        self._tasks: dict[PeerHandle, asyncio.Task[None]] = {}
        self._asked: dict[PeerHandle, tuple[Offer, User]] = {}
        self._reported = ""

    def apply(self) -> None:
        """The plan has changed."""
        self._checks.apply()
        self._reported = ""

    def close(self) -> None:
        """End all checks."""
        take_every_step([*(task.cancel for task in self._tasks.values()), self._checks.close])

    def forget(self, link: PeerLink) -> None:
        """The session is over."""
        self._asked.pop(link.handle, None)
        task = self._tasks.pop(link.handle, None)
        if task is not None:
            task.cancel()

    # --- what sessions ask ------------------------------------------------------------------------

    def begin(self, link: PeerLink, event: Authenticated) -> None:
        """A new session: let it in, refuse it, or ask for more. The answer may come later."""
        if not self._sessions.plan.admission.verify_command or not event.tls.peer_chain:
            self._begin(link, event)
            return
        offer = Offer(link, event.username, event.password, event.tls.peer_name)
        chain, facts = event.tls.peer_chain, _facts(link, event)
        self._verify(offer, chain, facts, lambda: self._begin(link, event))

    def _verify(
        self, offer: Offer, chain: tuple[bytes, ...], facts: dict[str, str], go_on: Callable[[], None]
    ) -> None:
        """Ask the verify command about the certificates first."""
        if self._is_full_for(offer):
            self._refuse(offer, BUSY, "login_limit", counts=False)
            return

        async def work() -> None:
            verdict = await self._checks.by_certificate(chain, facts)
            if not offer.link.session.is_live:
                return
            if verdict.is_right:
                go_on()
            else:
                self._conclude(offer, verdict)

        self._run(offer, work)

    def _begin(self, link: PeerLink, event: Authenticated) -> None:
        settings = self._settings
        if settings is None:
            self._owner.let_in(link, "", None)
            return
        name = event.tls.peer_name
        offer = Offer(link, event.username, event.password, name, event.answers_challenges)
        offer.facts = _facts(link, event)
        if not event.username and not event.password and settings.optional and event.tls.peer_fingerprint:
            self._owner.let_in(link, "", None)
        elif not event.username or not event.password:
            self._refuse(offer, MISSING, counts=False)
        elif not is_user_name(event.username):
            self._refuse(offer, WRONG)
        else:
            self._check(offer, settings)

    def renew(self, link: PeerLink, event: LoginOffered) -> None:
        """A renegotiation shows its certificate, and its token or password, again."""
        terms = link.terms
        if not self._sessions.plan.admission.verify_command or terms is None or not terms.tls.peer_chain:
            self._renew(link, event)
            return
        offer = Offer(link, event.username, event.password, link.name, is_renewal=True)
        facts = {"common_name": link.name}
        self._verify(offer, terms.tls.peer_chain, facts, lambda: self._renew(link, event))

    def _renew(self, link: PeerLink, event: LoginOffered) -> None:
        settings = self._settings
        offer = Offer(link, event.username, event.password, link.name, is_renewal=True)
        if settings is None or (settings.optional and not event.username and not event.password):
            link.session.accept_login(self._sessions.now())
            return
        self._check(offer, settings)

    def answer(self, link: PeerLink, event: ChallengeAnswered) -> None:
        """The one-time code that a live session was asked for."""
        offer, user = self._asked.pop(link.handle, (None, None))
        if offer is None or user is None:
            return
        self._conclude(offer, self._checks.by_code(offer.username, user, event.text))

    # --- checks -----------------------------------------------------------------------------------

    @property
    def _settings(self) -> Authentication | None:
        return self._sessions.plan.admission.authentication

    def _check(self, offer: Offer, settings: Authentication) -> None:
        if is_token(offer.password) and settings.token_seconds:
            # Nobody guesses one: what others behind the same address do must not end a live session.
            self._conclude(offer, self._checks.by_token(offer, settings))
        elif self._is_slowed_down(offer):
            return
        elif offer.password.startswith("CRV1::"):
            self._conclude(offer, self._checks.by_challenge(offer, settings))
        elif self._is_full_for(offer):
            self._refuse(offer, BUSY, "login_limit", counts=False)
        else:
            self._run(offer, partial(self._judge, offer, settings))

    async def _judge(self, offer: Offer, settings: Authentication) -> None:
        may_try = partial(self._may_try, offer)
        if settings.password_file is not None:
            verdict = await self._checks.by_file(offer, settings, may_try)
        else:
            timer = SUPERVISOR.after(
                "login_patience", PATIENCE_SECONDS, partial(self._ask_patience, offer, settings)
            )
            try:
                verdict = await self._checks.by_command(offer, settings, may_try)
            finally:
                timer.cancel()
        if verdict is not None:
            self._conclude(offer, verdict)

    def _may_try(self, offer: Offer) -> bool:
        """Its turn has come, and those before it may have used up the attempts."""
        offer.is_tried = not self._is_slowed_down(offer)
        return offer.is_tried

    def _is_slowed_down(self, offer: Offer) -> bool:
        """Refuse it if too many passwords were wrong."""
        if not self._attempts.wait(offer.link.endpoint.host, offer.username, self._sessions.now()):
            return False
        self._refuse(offer, TOO_OFTEN, "login_limit", counts=False)
        return True

    def _is_full_for(self, offer: Offer) -> bool:
        """Whether as many checks run as may; one of this session gives its place to the next."""
        return len(self._tasks) >= WAITING_MAX and offer.link.handle not in self._tasks

    def _run(self, offer: Offer, work: Callable[[], Awaitable[None]]) -> None:
        handle = offer.link.handle

        async def checked() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                if offer.is_tried:
                    self._note_failure(offer)
                raise
            finally:
                if self._tasks.get(handle) is asyncio.current_task():
                    del self._tasks[handle]
            # A refusal has just ended the session: its last words and its end wait to be carried out.
            offer.link.pump()
            self._sessions.rearm()

        before = self._tasks.get(handle)
        if before is not None and before is not asyncio.current_task():
            before.cancel()
        self._tasks[handle] = SUPERVISOR.keep("login", checked, self._sessions.plan.name)

    def _ask_patience(self, offer: Offer, settings: Authentication) -> None:
        """A client gives up after a minute, unless it hears that the decision takes longer."""
        if offer.is_renewal or not offer.link.session.is_live:
            return
        seconds = int(settings.command_seconds + PATIENCE_SECONDS)
        offer.link.session.challenge(None, seconds, self._sessions.now())
        offer.link.pump()
        self._sessions.rearm()

    # --- verdicts ---------------------------------------------------------------------------------

    def _conclude(self, offer: Offer, verdict: LoginVerdict) -> None:
        if verdict.is_right:
            self._accept(offer, verdict.token, verdict.method)
        elif verdict.asks is not None:
            offer.password = ""
            self._asked[offer.link.handle] = offer, verdict.asks
            offer.link.session.challenge(CODE_QUESTION, CHALLENGE_SECONDS, self._sessions.now())
        else:
            self._refuse(offer, verdict.text, verdict.reason, counts=verdict.counts, method=verdict.method)

    def _accept(self, offer: Offer, token: str | None, method: str) -> None:
        link, now = offer.link, self._sessions.now()
        offer.is_tried = False
        self._records.statistics.authentications[method, "accepted"] += 1
        self._attempts.note_success(link.endpoint.host, offer.username)
        if not link.session.is_live:
            return
        if offer.is_renewal:
            link.session.accept_login(now, token)
            return
        settings = self._settings
        by_user = settings is not None and (settings.name_from == "username" or not offer.certificate_name)
        self._owner.let_in(link, offer.username if by_user else "", token)

    def _refuse(
        self,
        offer: Offer,
        text: str,
        reason: str = "auth_failed",
        *,
        counts: bool = True,
        method: str = "password",
    ) -> None:
        link, now = offer.link, self._sessions.now()
        offer.is_tried = False
        self._records.statistics.authentications[method, "refused"] += 1
        if counts:
            self._note_failure(offer)
        if not link.session.is_live:
            return
        if offer.is_renewal:
            is_expired = text == EXPIRED
            words = text.removeprefix("SESSION: ") if is_expired else text
            link.session.reject_login(words, now, is_expired=is_expired)
        else:
            link.session.refuse(reason, text, now)

    def _note_failure(self, offer: Offer) -> None:
        self._attempts.note_failure(offer.link.endpoint.host, offer.username, self._sessions.now())

    def _report(self, text: str) -> None:
        """A login could not be checked. Said once for each reason."""
        if text != self._reported:
            self._reported = text
            self._records.log.error("login_unchecked", reason=text)


def _facts(link: PeerLink, event: Authenticated) -> dict[str, str]:
    """What a command may know, by OpenVPN's names."""
    host, kind = link.endpoint.host, "untrusted_ip6" if ":" in link.endpoint.host else "untrusted_ip"
    facts = {kind: host, "untrusted_port": str(link.endpoint.port), "common_name": event.tls.peer_name}
    if event.tls.peer_name:
        facts["X509_0_CN"] = event.tls.peer_name
    known = {"IV_VER": event.peer_version, "IV_PLAT": event.peer_platform}
    return facts | {name: value for name, value in known.items() if value}
