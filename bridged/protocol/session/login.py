"""What a client proves besides its certificate: user name and password, tokens, answers to challenges.

Source: docs/protocol/control.md#5 and #6.
Pure: values and an interface; who keeps the secrets is the owner's choice.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final, Protocol

CR_TEXT: Final = "CR_TEXT:"
"""Begins the INFO_PRE text that asks for a one-time code on a live session."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What goes into one key message. `is_token`: the password is a token that the server gave us."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    is_token: bool = False


class ClientLogin(Protocol):
    """Knows a client's user name and password, and keeps the token that the server gave in their place.

    One for all sessions of a tunnel.
    """

    @property
    def answers_challenges(self) -> bool:
        """It can make one-time codes."""

    def credentials(self) -> Credentials:
        """For the next key message.

        Raises:
            LoginUnavailable: they cannot be read now.
        """

    def code(self) -> str:
        """The one-time code of this moment.

        Raises:
            LoginUnavailable: there is no secret to make it from, or it cannot be read.
        """

    def note_token(self, token: str, username: str | None) -> None:
        """The server gave a token, and may have set the user name that belongs to it."""

    def forget_token(self) -> bool:
        """The token is not accepted any more. False: there was none."""

    def note_challenge(self, challenge: DynamicChallenge) -> bool:
        """Answer this challenge in the next key message; False if that is not possible."""

    def succeed(self, other: ClientLogin | None) -> bool:
        """Take over the token of a predecessor with the same settings. False: they differ."""

    def note_accepted(self) -> None:
        """The server let us in."""

    def note_refused(self) -> float:
        """User name or password are wrong. Returns how many seconds to wait before the next attempt."""


@dataclass(frozen=True, slots=True)
class DynamicChallenge:
    """AUTH_FAILED,CRV1: the server wants a new connection, with an answer in place of the password."""

    wants_response: bool
    state: str = field(repr=False)
    username: str = field(repr=False)
    text: str

    @classmethod
    def parse(cls, reason: str) -> DynamicChallenge | None:
        """`CRV1:FLAGS:STATE:USERNAME_BASE64:TEXT`; None if it is not well formed."""
        parts = reason.split(":", 4)
        if len(parts) != 5 or parts[0] != "CRV1":
            return None
        username = decode_base64(parts[3])
        if username is None:
            return None
        return cls("R" in parts[1].split(","), parts[2], username, parts[4])

    def answer(self, code: str) -> Credentials:
        """What to send on the next connection."""
        return Credentials(self.username, f"CRV1::{self.state}::{code}")


def encode_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def decode_base64(text: str) -> str | None:
    """The text inside; None if it is none."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def static_response(password: str, code: str) -> str:
    """The password field of a client whose profile has `static-challenge`."""
    return f"SCRV1:{encode_base64(password)}:{encode_base64(code)}"
