"""What a login is worth: by its token, a file of passwords, a one-time code, or a command.

Hashes run in threads and commands as processes, beside the event loop and a few at once. What becomes of the
peer is the `Authenticator`'s business.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bridged.configuration.access import Authentication
from bridged.errors import ConfigurationError
from bridged.files import open_to_read, write_atomic
from bridged.protocol.session.login import decode_base64, encode_base64
from bridged.runtime.server.auth_command import CommandAnswer, Question, ask_command, ask_verify
from bridged.runtime.server.auth_token import ID_OCTETS, KEY_OCTETS, TokenMint, TokenRules
from bridged.runtime.server.login_attempts import source_of
from bridged.runtime.server.password_file import User, UserFile
from bridged.runtime.server.used_codes import used_codes_in
from bridged.runtime.tunnels.clock import unix_now
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.sessions import Sessions
from bridged.supervision import yielding_pool

CHECKS_AT_ONCE: Final = 2
"""Each hash takes 19 MiB of memory."""
COMMANDS_AT_ONCE: Final = 8
DEFERRED_MAX: Final = 64
"""Commands that answer later, such as when somebody presses a button: they take no place of the others."""
DEFERRED_BY_SOURCE: Final = 32
"""The same from one address, which cannot take all places."""
VERIFY_SECONDS: Final = 10.0
CHALLENGE_SECONDS: Final = 60
CHALLENGES_MAX: Final = 1024
CODE_QUESTION: Final = "One-time code"
WRONG: Final = "user name or password is wrong"
EXPIRED: Final = "SESSION: the token has expired"
BUSY: Final = "too many logins at once; try again"
_UNCHECKED: Final = "the server cannot check passwords now"
_CODE_DIGITS: Final = 6
"""Of the shortest codes."""
_IDLE_PERIODS: Final = 2
_IDLE_SPARE_SECONDS: Final = 300.0


@dataclass(slots=True)
class Offer:
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


@dataclass(frozen=True, slots=True)
class LoginVerdict:
    """`text`, `reason`: what the client and the figures hear of a refusal.

    `counts`: a password was wrong. `token`: takes the password's place from now on. `asks`: the password is
    right, and this user is asked for a one-time code next.
    """

    is_right: bool
    text: str = ""
    reason: str = "auth_failed"
    counts: bool = True
    method: str = "password"
    token: str | None = field(default=None, repr=False)
    asks: User | None = None


_IS_WRONG: Final = LoginVerdict(False, WRONG)
_IS_BUSY: Final = LoginVerdict(False, BUSY, "login_limit", counts=False)
_IS_UNCHECKED: Final = LoginVerdict(False, _UNCHECKED, counts=False)


class LoginChecks:
    """The checks of one tunnel, by the present plan. `report` hears why a login could not be checked.

    `may_try` is asked when the turn of an offer has come. If it says no, there is no verdict (None).
    """

    def __init__(self, sessions: Sessions, report: Callable[[str], None]) -> None:
        self._sessions = sessions
        self._report = report
        self._users: UserFile | None = None
        self._mint: TokenMint | None = None
        self._hashers = yielding_pool(CHECKS_AT_ONCE, "login-hash")
        self._hashing = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._asking = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._deferred: Counter[str] = Counter()
        self._challenges: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def apply(self) -> None:
        """The plan has changed."""
        self._users = None

    def close(self) -> None:
        """Start no more hashes."""
        self._hashers.shutdown(wait=False)

    # --- certificates -----------------------------------------------------------------------------

    async def by_certificate(self, chain: Sequence[bytes], facts: Mapping[str, str]) -> LoginVerdict:
        """Ask the verify command."""
        async with self._asking:
            command = self._sessions.plan.admission.verify_command
            answer = await ask_verify(command, chain, facts, VERIFY_SECONDS)
        if answer.is_failure:
            self._report(answer.reason)
        if answer.is_right:
            return LoginVerdict(True, method="certificate")
        text = "the certificate is refused"
        return LoginVerdict(False, text, "certificate_rejected", counts=False, method="certificate")

    # --- tokens -----------------------------------------------------------------------------------

    def by_token(self, offer: Offer, settings: Authentication) -> LoginVerdict:
        """A token was given to somebody who has logged in before."""
        mint, now = self._token_mint(), unix_now()
        period = self._sessions.plan.session.reneg_seconds
        idle = _IDLE_PERIODS * period + _IDLE_SPARE_SECONDS if period else 0.0
        verdict = mint.judge(offer.username, offer.password, TokenRules(settings.token_seconds, idle), now)
        if verdict == "good" and self._is_known(offer.username, settings):
            token = mint.renew(offer.username, offer.password, now)
            return LoginVerdict(True, method="token", token=token)
        return LoginVerdict(False, EXPIRED, counts=False, method="token")

    def _is_known(self, username: str, settings: Authentication) -> bool:
        """A user who was removed from the file loses the token, too."""
        if settings.password_file is None:
            return True
        try:
            return self._password_file(settings.password_file).find(username) is not None
        except ConfigurationError:
            return False

    # --- passwords and codes ----------------------------------------------------------------------

    async def by_file(
        self, offer: Offer, settings: Authentication, may_try: Callable[[], bool]
    ) -> LoginVerdict | None:
        """Compare with the file's hash, and look at the one-time code."""
        assert settings.password_file is not None
        password, code = _split_static(offer.password)
        users = self._password_file(settings.password_file)
        try:
            await self._hashing.acquire()
            if not may_try():
                self._hashing.release()
                return None
            verify = partial(_verify, users, offer.username, password, code)
            hashed = asyncio.get_running_loop().run_in_executor(self._hashers, verify)
            # The thread goes on when the session ends: its place is free only after it.
            hashed.add_done_callback(lambda _: self._hashing.release())
            user, code = await asyncio.shield(hashed)
        except ConfigurationError as error:
            self._report(error.message)
            return _IS_UNCHECKED
        if user is None:
            return _IS_WRONG
        if user.secret is None or (offer.is_renewal and code is None):
            return self._accepted(offer.username)
        if code is not None:
            return self.by_code(offer.username, user, code)
        if offer.answers_challenges:
            return LoginVerdict(False, asks=user)
        return self._challenge_next(offer)

    def by_code(self, username: str, user: User, code: str) -> LoginVerdict:
        """The password was right; each code counts once."""
        used = used_codes_in(self._sessions.plan.admission.used_codes)
        if user.secret is None or not used.take(username, user.secret, code, unix_now()):
            return _IS_WRONG
        return self._accepted(username)

    def by_challenge(self, offer: Offer, settings: Authentication) -> LoginVerdict:
        """The answer to a challenge that ended the connection before."""
        state, _, code = offer.password.removeprefix("CRV1::").partition("::")
        username, until = self._challenges.pop(state, ("", 0.0))
        user = None
        if settings.password_file is not None and username == offer.username:
            try:
                user = self._password_file(settings.password_file).find(username)
            except ConfigurationError as error:
                self._report(error.message)
        if user is None or self._sessions.now() > until:
            return _IS_WRONG
        return self.by_code(username, user, code)

    def _challenge_next(self, offer: Offer) -> LoginVerdict:
        """Ask by a refusal: the client connects again, with the code in place of the password."""
        state = secrets.token_urlsafe(18)
        self._challenges[state] = offer.username, self._sessions.now() + 2 * CHALLENGE_SECONDS
        while len(self._challenges) > CHALLENGES_MAX:
            self._challenges.popitem(last=False)
        text = f"CRV1:R,E:{state}:{encode_base64(offer.username)}:{CODE_QUESTION}"
        return LoginVerdict(False, text, counts=False)

    # --- commands ---------------------------------------------------------------------------------

    async def by_command(
        self, offer: Offer, settings: Authentication, may_try: Callable[[], bool]
    ) -> LoginVerdict | None:
        """Ask the operator's program."""
        answer = await self._ask_in_turn(offer, settings, may_try)
        if answer is None:
            return None
        if answer.is_right:
            return self._accepted(offer.username)
        if answer.is_crowded:
            return _IS_BUSY
        if answer.is_failure:
            self._report(answer.reason)
            # Many scripts end with some status when a password is wrong.
            return LoginVerdict(False, _UNCHECKED, counts=answer.has_run)
        return LoginVerdict(False, answer.reason or WRONG)

    async def _ask_in_turn(
        self, offer: Offer, settings: Authentication, may_try: Callable[[], bool]
    ) -> CommandAnswer | None:
        question = Question(offer.username, offer.password, offer.facts)
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
            if not may_try():
                return None
            return await ask_command(
                settings.command, settings.command_input, question, settings.command_seconds, may_defer
            )
        finally:
            if is_deferred:
                self._deferred[source] -= 1
                self._deferred += Counter()  # forgets sources without any
            else:
                self._asking.release()

    # --- files ------------------------------------------------------------------------------------

    def _password_file(self, path: Path) -> UserFile:
        if self._users is None:
            self._users = UserFile(path, f"tunnels.{self._sessions.plan.name}.authentication.password_file")
        return self._users

    def _accepted(self, username: str) -> LoginVerdict:
        settings = self._sessions.plan.admission.authentication
        if settings is None or not settings.token_seconds:
            return LoginVerdict(True)
        token = self._token_mint().make(username, secrets.token_bytes(ID_OCTETS), unix_now())
        return LoginVerdict(True, token=token)

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
    if len(password) <= _CODE_DIGITS or not password[-_CODE_DIGITS:].isdigit():
        return None, None
    user = users.find(name)
    secret = user.secret if user is not None else None
    digits = secret.digits if secret is not None else _CODE_DIGITS
    plain, code = password[:-digits], password[-digits:]
    if secret is None or not plain or not code.isdigit():
        # A user without codes, or none, takes as long: time tells nobody who has them.
        users.pretend(name, plain)
        return None, None
    return users.verify(name, plain), code
