"""Asks a server's clients for user name and password, and says who may come in.

Checks run beside the event loop: hashes in threads, commands as processes. What strangers cause is bounded.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from bridged.configuration.access import Authentication
from bridged.endings import take_every_step
from bridged.errors import ConfigurationError
from bridged.files import open_to_read, write_atomic
from bridged.protocol.session.events import Authenticated, ChallengeAnswered, LoginOffered
from bridged.protocol.session.login import decode_base64, encode_base64
from bridged.runtime.server.auth_command import CommandAnswer, Question, ask_command, ask_verify
from bridged.runtime.server.auth_token import ID_OCTETS, KEY_OCTETS, TokenMint, TokenRules, is_token
from bridged.runtime.server.login_attempts import LoginAttempts, source_of
from bridged.runtime.server.password_file import User, UserFile, is_user_name
from bridged.runtime.server.used_codes import USED_CODES
from bridged.runtime.tunnels.clock import unix_now
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.runtime.tunnels.sessions import Sessions
from bridged.supervision import SUPERVISOR, yielding_pool
from bridged.units import PeerHandle

CHECKS_AT_ONCE: Final = 2
"""Each hash takes 19 MiB of memory."""
COMMANDS_AT_ONCE: Final = 8
DEFERRED_MAX: Final = 64
"""So many that will answer later, such as when somebody presses a button, take no place of the others."""
WAITING_MAX: Final = 512
DEFERRED_BY_SOURCE: Final = 32
"""So many of them from one address: it cannot take all."""
VERIFY_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 5.0
"""After this long a client is told that its login takes longer (AUTH_PENDING)."""
CHALLENGE_SECONDS: Final = 60
CHALLENGES_MAX: Final = 1024
CODE_QUESTION: Final = "One-time code"
WRONG: Final = "user name or password is wrong"
EXPIRED: Final = "SESSION: the token has expired"
TOO_OFTEN: Final = "too many wrong passwords; wait a minute"
BUSY: Final = "too many logins at once; try again"
MISSING: Final = "a user name and a password are needed (auth-user-pass)"
_CODE_DIGITS: Final = 6
_IDLE_PERIODS: Final = 2
_IDLE_SPARE_SECONDS: Final = 300.0


class LoginOwner(Protocol):
    """Who lets clients in."""

    def let_in(self, link: PeerLink, name: str, token: str | None) -> None:
        """The peer is welcome. `name` is empty where its certificate names it."""


@dataclass(slots=True)
class _Offer:
    """One login that is being checked."""

    link: PeerLink
    username: str
    password: str = field(repr=False)
    certificate_name: str = ""
    answers_challenges: bool = False
    is_renewal: bool = False
    is_tried: bool = False
    """It has had its turn. Who leaves before the verdict has tried a password nevertheless."""
    facts: dict[str, str] = field(default_factory=dict)


class Authenticator:
    """Checks the logins of one tunnel by the present plan's `authentication`."""

    def __init__(self, sessions: Sessions, records: PeerRecords, owner: LoginOwner) -> None:
        self._sessions = sessions
        self._records = records
        self._owner = owner
        self._attempts = LoginAttempts()
        self._users: UserFile | None = None
        self._mint: TokenMint | None = None
        self._hashers = yielding_pool(CHECKS_AT_ONCE, "login-hash")
        self._hashing = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._asking = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._deferred: Counter[str] = Counter()
        self._tasks: dict[PeerHandle, asyncio.Task[None]] = {}
        self._asked: dict[PeerHandle, tuple[_Offer, User]] = {}
        self._challenges: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._reported = ""

    def apply(self) -> None:
        """The plan has changed."""
        self._users = None
        self._reported = ""

    def close(self) -> None:
        """End all checks."""
        take_every_step(
            [*(task.cancel for task in self._tasks.values()), partial(self._hashers.shutdown, wait=False)]
        )

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
        offer = _Offer(link, event.username, event.password, event.tls.peer_name)
        chain, facts = event.tls.peer_chain, _facts(link, event)
        self._verify(offer, chain, facts, lambda: self._begin(link, event))

    def _verify(
        self, offer: _Offer, chain: tuple[bytes, ...], facts: dict[str, str], go_on: Callable[[], None]
    ) -> None:
        """Ask the verify command about the certificates first."""
        if len(self._tasks) >= WAITING_MAX:
            self._refuse(offer, BUSY, "login_limit", counts=False)
            return

        async def work() -> None:
            async with self._asking:
                command = self._sessions.plan.admission.verify_command
                answer = await ask_verify(command, chain, facts, VERIFY_SECONDS)
            if answer.is_failure:
                self._report(answer.reason)
            if not offer.link.session.is_live:
                return
            if answer.is_right:
                go_on()
            else:
                text = "the certificate is refused"
                self._refuse(offer, text, "certificate_rejected", counts=False, method="certificate")

        self._run(offer, work)

    def _begin(self, link: PeerLink, event: Authenticated) -> None:
        settings = self._settings
        if settings is None:
            self._owner.let_in(link, "", None)
            return
        name = event.tls.peer_name
        offer = _Offer(link, event.username, event.password, name, event.answers_challenges)
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
        offer = _Offer(link, event.username, event.password, link.name, is_renewal=True)
        facts = {"common_name": link.name}
        self._verify(offer, terms.tls.peer_chain, facts, lambda: self._renew(link, event))

    def _renew(self, link: PeerLink, event: LoginOffered) -> None:
        settings = self._settings
        offer = _Offer(link, event.username, event.password, link.name, is_renewal=True)
        if settings is None or (settings.optional and not event.username and not event.password):
            link.session.accept_login(self._sessions.now())
            return
        self._check(offer, settings)

    def answer(self, link: PeerLink, event: ChallengeAnswered) -> None:
        """The one-time code that a live session was asked for."""
        offer, user = self._asked.pop(link.handle, (None, None))
        if offer is None or user is None:
            return
        if self._is_right_code(offer.username, user, event.text):
            self._accept(offer, self._new_token(offer.username))
        else:
            self._refuse(offer, WRONG)

    # --- checks -----------------------------------------------------------------------------------

    @property
    def _settings(self) -> Authentication | None:
        return self._sessions.plan.admission.authentication

    def _check(self, offer: _Offer, settings: Authentication) -> None:
        if is_token(offer.password) and settings.token_seconds:
            # Nobody guesses one: what others behind the same address do must not end a live session.
            self._check_token(offer, settings)
        elif self._is_slowed_down(offer):
            return
        elif offer.password.startswith("CRV1::"):
            self._check_dynamic(offer)
        elif len(self._tasks) >= WAITING_MAX:
            self._refuse(offer, BUSY, "login_limit", counts=False)
        else:
            work = self._check_by_file if settings.password_file is not None else self._check_by_command
            self._run(offer, partial(work, offer, settings))

    def _is_slowed_down(self, offer: _Offer) -> bool:
        """Refuse it if too many passwords were wrong: ask again when its turn comes, for those before it."""
        if not self._attempts.wait(offer.link.endpoint.host, offer.username, self._sessions.now()):
            return False
        self._refuse(offer, TOO_OFTEN, "login_limit", counts=False)
        return True

    def _run(self, offer: _Offer, work: Callable[[], Awaitable[None]]) -> None:
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
            if offer.link.session.is_live:
                offer.link.pump()
                self._sessions.rearm()

        before = self._tasks.get(handle)
        if before is not None and before is not asyncio.current_task():
            before.cancel()
        self._tasks[handle] = SUPERVISOR.keep("login", checked, self._sessions.plan.name)

    def _check_token(self, offer: _Offer, settings: Authentication) -> None:
        mint, now = self._token_mint(), unix_now()
        period = self._sessions.plan.session.reneg_seconds
        idle = _IDLE_PERIODS * period + _IDLE_SPARE_SECONDS if period else 0.0
        verdict = mint.judge(offer.username, offer.password, TokenRules(settings.token_seconds, idle), now)
        if verdict == "good" and self._is_known(offer.username, settings):
            self._accept(offer, mint.renew(offer.username, offer.password, now), "token")
        else:
            self._refuse(offer, EXPIRED, counts=False, method="token")

    def _is_known(self, username: str, settings: Authentication) -> bool:
        """A user who was removed from the file loses the token, too."""
        if settings.password_file is None:
            return True
        try:
            return self._password_file(settings.password_file).find(username) is not None
        except ConfigurationError:
            return False

    def _check_dynamic(self, offer: _Offer) -> None:
        """The answer to a challenge that ended the connection before."""
        state, _, code = offer.password.removeprefix("CRV1::").partition("::")
        username, until = self._challenges.pop(state, ("", 0.0))
        settings = self._settings
        user = None
        if settings is not None and settings.password_file is not None and username == offer.username:
            try:
                user = self._password_file(settings.password_file).find(username)
            except ConfigurationError as error:
                self._report(error.message)
        if user is None or self._sessions.now() > until or not self._is_right_code(username, user, code):
            self._refuse(offer, WRONG)
            return
        self._accept(offer, self._new_token(username))

    async def _check_by_file(self, offer: _Offer, settings: Authentication) -> None:
        assert settings.password_file is not None
        password, code = _split_static(offer.password)
        users = self._password_file(settings.password_file)
        try:
            await self._hashing.acquire()
            if self._is_slowed_down(offer):
                self._hashing.release()
                return
            offer.is_tried = True
            verify = partial(_verify, users, offer.username, password, code)
            hashed = asyncio.get_running_loop().run_in_executor(self._hashers, verify)
            # The thread goes on when the session ends: its place is free only after it.
            hashed.add_done_callback(lambda _: self._hashing.release())
            user, code = await asyncio.shield(hashed)
        except ConfigurationError as error:
            self._report(error.message)
            self._refuse(offer, "the server cannot check passwords now", counts=False)
            return
        if user is None:
            self._refuse(offer, WRONG)
        elif user.secret is None or (offer.is_renewal and code is None):
            self._accept(offer, self._new_token(offer.username))
        elif code is not None:
            if self._is_right_code(offer.username, user, code):
                self._accept(offer, self._new_token(offer.username))
            else:
                self._refuse(offer, WRONG)
        elif offer.answers_challenges:
            offer.password = ""
            self._asked[offer.link.handle] = offer, user
            offer.link.session.challenge(CODE_QUESTION, CHALLENGE_SECONDS, self._sessions.now())
        else:
            self._challenge_next(offer)

    def _challenge_next(self, offer: _Offer) -> None:
        """Ask by a refusal: the client connects again, with the code in place of the password."""
        state = secrets.token_urlsafe(18)
        self._challenges[state] = offer.username, self._sessions.now() + 2 * CHALLENGE_SECONDS
        while len(self._challenges) > CHALLENGES_MAX:
            self._challenges.popitem(last=False)
        text = f"CRV1:R,E:{state}:{encode_base64(offer.username)}:{CODE_QUESTION}"
        self._refuse(offer, text, counts=False)

    async def _check_by_command(self, offer: _Offer, settings: Authentication) -> None:
        question = Question(offer.username, offer.password, offer.facts)
        timer = SUPERVISOR.after(
            "login_patience", PATIENCE_SECONDS, partial(self._ask_patience, offer, settings)
        )
        try:
            answer = await self._ask_in_turn(offer, question, settings)
        finally:
            timer.cancel()
        if answer is None:
            return
        if answer.is_right:
            self._accept(offer, self._new_token(offer.username))
        elif answer.is_crowded:
            self._refuse(offer, BUSY, "login_limit", counts=False)
        elif answer.is_failure:
            self._report(answer.reason)
            # Many scripts end with some status when a password is wrong.
            self._refuse(offer, "the server cannot check passwords now", counts=answer.has_run)
        else:
            self._refuse(offer, answer.reason or WRONG)

    async def _ask_in_turn(
        self, offer: _Offer, question: Question, settings: Authentication
    ) -> CommandAnswer | None:
        """None: it was refused before its turn came."""
        is_deferred = False
        source = source_of(offer.link.endpoint.host)

        def may_defer() -> bool:
            nonlocal is_deferred
            if self._deferred[source] >= DEFERRED_BY_SOURCE:
                return False
            if self._deferred.total() < DEFERRED_MAX:
                is_deferred = True
                self._deferred[source] += 1
                self._asking.release()
            return True

        await self._asking.acquire()
        try:
            if self._is_slowed_down(offer):
                return None
            offer.is_tried = True
            return await ask_command(
                settings.command, settings.command_input, question, settings.command_seconds, may_defer
            )
        finally:
            if is_deferred:
                self._deferred[source] -= 1
                self._deferred += Counter()  # forgets sources without any
            else:
                self._asking.release()

    def _ask_patience(self, offer: _Offer, settings: Authentication) -> None:
        """A client gives up after a minute, unless it hears that the decision takes longer."""
        if offer.is_renewal or not offer.link.session.is_live:
            return
        seconds = int(settings.command_seconds + PATIENCE_SECONDS)
        offer.link.session.challenge(None, seconds, self._sessions.now())
        offer.link.pump()
        self._sessions.rearm()

    def _is_right_code(self, username: str, user: User, code: str) -> bool:
        """Each code counts once."""
        return user.secret is not None and USED_CODES.take(username, user.secret, code, unix_now())

    # --- verdicts ---------------------------------------------------------------------------------

    def _accept(self, offer: _Offer, token: str | None, method: str = "password") -> None:
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
        offer: _Offer,
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

    def _note_failure(self, offer: _Offer) -> None:
        self._attempts.note_failure(offer.link.endpoint.host, offer.username, self._sessions.now())

    def _report(self, text: str) -> None:
        """A login could not be checked. Said once for each reason."""
        if text != self._reported:
            self._reported = text
            self._records.log.error("login_unchecked", reason=text)

    # --- files ------------------------------------------------------------------------------------

    def _password_file(self, path: Path) -> UserFile:
        if self._users is None:
            self._users = UserFile(path, f"tunnels.{self._sessions.plan.name}.authentication.password_file")
        return self._users

    def _new_token(self, username: str) -> str | None:
        settings = self._settings
        if settings is None or not settings.token_seconds:
            return None
        return self._token_mint().make(username, secrets.token_bytes(ID_OCTETS), unix_now())

    def _token_mint(self) -> TokenMint:
        if self._mint is None:
            self._mint = TokenMint(_kept_key(self._sessions.plan.admission.token_key))
        return self._mint


def _kept_key(path: Path | None) -> bytes:
    """The key of the tunnel's tokens, which survives restarts; a fresh one if it cannot be kept."""
    if path is not None:
        try:
            with open_to_read(path) as stream:
                key = stream.read(KEY_OCTETS + 1)
            if len(key) == KEY_OCTETS:
                return key
        except OSError:
            pass
    key = os.urandom(KEY_OCTETS)
    if path is not None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, key)
        except OSError:
            pass
    return key


def _split_static(password: str) -> tuple[str, str | None]:
    """(password, one-time code) of a client with `static-challenge`."""
    if not password.startswith("SCRV1:"):
        return password, None
    first, _, second = password.removeprefix("SCRV1:").partition(":")
    plain, code = decode_base64(first), decode_base64(second)
    return (password, None) if plain is None or code is None else (plain, code)


def _verify(users: UserFile, name: str, password: str, code: str | None) -> tuple[User | None, str | None]:
    """The user, if the password is right, and the code. Without `code` that may stand behind the password."""
    user = users.verify(name, password)
    if user is not None or code is not None:
        return user, code
    user = users.find(name)
    secret = user.secret if user is not None else None
    digits = secret.digits if secret is not None else _CODE_DIGITS
    if len(password) <= digits or not password[-digits:].isdigit():
        return None, None
    # A user without codes, or none, takes as long: time tells nobody who has them.
    return users.verify(name if secret is not None else "", password[:-digits]), password[-digits:]


def _facts(link: PeerLink, event: Authenticated) -> dict[str, str]:
    """What a command may know, by OpenVPN's names."""
    host, kind = link.endpoint.host, "untrusted_ip6" if ":" in link.endpoint.host else "untrusted_ip"
    facts = {kind: host, "untrusted_port": str(link.endpoint.port), "common_name": event.tls.peer_name}
    if event.tls.peer_name:
        facts["X509_0_CN"] = event.tls.peer_name
    told = {"IV_VER": event.peer_version, "IV_PLAT": event.peer_platform}
    return facts | {name: value for name, value in told.items() if value}
