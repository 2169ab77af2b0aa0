"""Tokens that take the place of a password, so that a renegotiation does not ask for it again.

Source: docs/protocol/control.md#6-1 (tokens). No sockets, no clock: callers pass `now` (Unix seconds).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "SESS_ID_AT_"
ID_OCTETS: Final = 12
KEY_OCTETS: Final = 32
_TAG_OCTETS: Final = 32
_TIMES: Final = struct.Struct(">QQ")
_OCTETS: Final = ID_OCTETS + _TIMES.size + _TAG_OCTETS
_CLOCK_SECONDS: Final = 60
"""A token may be so much younger than now: somebody may have set the clock."""

TokenVerdict = Literal["good", "expired", "wrong"]


def is_token(password: str) -> bool:
    """Whether a password claims to be one of our tokens."""
    return password.startswith(PREFIX)


@dataclass(frozen=True, slots=True)
class TokenRules:
    """How long tokens count. Seconds; `idle`: since the last one was given; 0: for ever."""

    lifetime: float
    idle: float


class TokenMint:
    """Makes and checks tokens with one key. A token belongs to a user name."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "TokenMint()"

    def make(self, username: str, token_id: bytes, now: float) -> str:
        """The first token of a login. `token_id`: ID_OCTETS random bytes."""
        return self._seal(username, token_id, int(now), int(now))

    def renew(self, username: str, token: str, now: float) -> str:
        """A good token with a new time, and the time of the login as before."""
        fields = _fields(token)
        assert fields is not None
        return self._seal(username, fields[0], fields[1], int(now))

    def judge(self, username: str, token: str, rules: TokenRules, now: float) -> TokenVerdict:
        """Whether this token was made for this user, and still counts."""
        fields = _fields(token)
        if fields is None:
            return "wrong"
        token_id, first, last, tag = fields
        if not hmac.compare_digest(tag, self._tag(username, token_id + _TIMES.pack(first, last))):
            return "wrong"
        age, idle = now - first, now - last
        if age < -_CLOCK_SECONDS or idle < -_CLOCK_SECONDS:
            return "expired"
        is_late = (rules.lifetime and age > rules.lifetime) or (rules.idle and idle > rules.idle)
        return "expired" if is_late else "good"

    def _seal(self, username: str, token_id: bytes, first: int, last: int) -> str:
        body = token_id + _TIMES.pack(first, last)
        return PREFIX + base64.b64encode(body + self._tag(username, body)).decode("ascii")

    def _tag(self, username: str, body: bytes) -> bytes:
        return hmac.digest(self._key, username.encode() + body, "sha256")


def _fields(token: str) -> tuple[bytes, int, int, bytes] | None:
    try:
        content = base64.b64decode(token.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(content) != _OCTETS:
        return None
    first, last = _TIMES.unpack_from(content, ID_OCTETS)
    return content[:ID_OCTETS], first, last, content[-_TAG_OCTETS:]
