"""A client's user name and password, read from where the configuration says each time they are needed.

Implements `bridged.protocol.session.login.ClientLogin`.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from bridged.configuration.access import Login
from bridged.configuration.check import is_inline
from bridged.errors import ConfigurationError, LoginUnavailable
from bridged.files import open_to_read, why_unreadable
from bridged.protocol.keys.key_exchange import MAX_CREDENTIAL
from bridged.protocol.keys.one_time_code import OneTimeSecret, parse_one_time_secret
from bridged.protocol.session.login import Credentials, DynamicChallenge, static_response

SECRET_OCTETS_MAX: Final = 4096
REFUSED_SECONDS: Final = 60.0
"""The pause after a wrong password: many servers lock an account after a few of them."""
REFUSED_SECONDS_MAX: Final = 300.0
_DOUBLINGS_MAX: Final = 8
_MARK_KEY: Final = os.urandom(32)


class PasswordLogin:
    """User name and password of one tunnel; see `ClientLogin`. Keeps no secret but the server's token.

    `prefix` is the tunnel's key, for errors; relative files begin at `base`.

    Raises:
        ConfigurationError: a file cannot be read now, or its content cannot be used.
    """

    def __init__(self, settings: Login, prefix: str, base: Path) -> None:
        self._settings = settings
        self._prefix = f"{prefix}.login"
        self._base = base
        self._username = ""
        self._token: Credentials | None = None
        self._challenge: DynamicChallenge | None = None
        self._refusals = 0
        self._mark = self._check()

    def __repr__(self) -> str:
        return f"PasswordLogin({self._prefix})"

    def succeed(self, other: object) -> bool:
        if not isinstance(other, PasswordLogin) or other._settings != self._settings:
            return False
        if not hmac.compare_digest(other._mark, self._mark):
            return False
        self._token, self._refusals, self._username = other._token, other._refusals, other._username
        return True

    @property
    def answers_challenges(self) -> bool:
        return self._settings.totp_secret is not None

    def credentials(self) -> Credentials:
        challenge, self._challenge = self._challenge, None
        if challenge is not None:
            return challenge.answer(self.code() if challenge.wants_response else "")
        if self._token is not None:
            return self._token
        try:
            username, password = self._password()
        except ConfigurationError as error:
            raise LoginUnavailable(error.message) from None
        self._username = username
        return Credentials(username, with_code(password, self._settings.challenge, self.code))

    def code(self) -> str:
        try:
            secret = self._secret()
        except ConfigurationError as error:
            raise LoginUnavailable(error.message) from None
        if secret is None:
            raise LoginUnavailable(f"{self._prefix}: a one-time code is asked for; set `totp_secret`")
        return secret.code(time.time())

    def note_token(self, token: str, username: str | None) -> None:
        if len(token.encode()) > MAX_CREDENTIAL or len((username or "").encode()) > MAX_CREDENTIAL:
            return
        self._token = Credentials(username or self._username, token, is_token=True)

    def forget_token(self) -> bool:
        had, self._token = self._token is not None, None
        return had

    def note_challenge(self, challenge: DynamicChallenge) -> bool:
        if challenge.wants_response and not self.answers_challenges:
            return False
        self._challenge = challenge
        return True

    def note_accepted(self) -> None:
        self._refusals = 0

    def note_refused(self) -> float:
        seconds = REFUSED_SECONDS * 2.0 ** min(self._refusals, _DOUBLINGS_MAX)
        self._refusals += 1
        return min(seconds, REFUSED_SECONDS_MAX)

    # --- files ------------------------------------------------------------------------------------

    def _check(self) -> bytes:
        """Returns a mark that changes with user name, password and secret."""
        (username, password), secret = self._password(), self._secret()
        text = "\0".join((username, password, secret.secret.hex() if secret is not None else ""))
        mark = hmac.digest(_MARK_KEY, text.encode(), "sha256")
        if self._settings.challenge == "none":
            return mark
        if secret is None:
            raise ConfigurationError("needs `totp_secret`", key=f"{self._prefix}.challenge")
        sent = with_code(password, self._settings.challenge, lambda: "0" * secret.digits)
        if len(sent.encode()) > MAX_CREDENTIAL:
            raise ConfigurationError(
                "is too long together with a one-time code", key=f"{self._prefix}.password"
            )
        return mark

    def _password(self) -> tuple[str, str]:
        """User name and password."""
        key, username = f"{self._prefix}.password", self._settings.username
        lines = [line.rstrip("\r") for line in self._read(self._settings.password or "", key).split("\n")]
        found = (username, *lines)[:2] if username is not None else (*lines, "", "")[:2]
        if not all(found) or "\0" in "".join(found):
            where = "first line" if username is not None else "second line, after the user name in the first"
            raise ConfigurationError(f"has no password in its {where}", key=key)
        if any(len(text.encode()) > MAX_CREDENTIAL for text in found):
            raise ConfigurationError(f"is longer than {MAX_CREDENTIAL} bytes, the most that fits", key=key)
        return found[0], found[1]

    def _secret(self) -> OneTimeSecret | None:
        if self._settings.totp_secret is None:
            return None
        key = f"{self._prefix}.totp_secret"
        return parse_one_time_secret(self._read(self._settings.totp_secret, key), key)

    def _read(self, value: str, key: str) -> str:
        if is_inline(value):
            return value
        path = self._base / value
        try:
            with open_to_read(path) as stream:
                return stream.read(SECRET_OCTETS_MAX).decode()
        except UnicodeDecodeError:
            raise ConfigurationError("is not UTF-8 text", file=path, key=key) from None
        except (OSError, ValueError) as error:
            reason = why_unreadable(path, error)
            raise ConfigurationError(f"cannot be read: {reason}", file=path, key=key) from None


def with_code(password: str, challenge: Literal["none", "scrv1", "concat"], make: Callable[[], str]) -> str:
    """The password field that a static challenge makes of the password and its code."""
    if challenge == "none":
        return password
    return static_response(password, make()) if challenge == "scrv1" else password + make()
