"""Text messages of the control channel, which follow the key messages.

Source: docs/protocol/control.md#6.
Pure: bytes in, values out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, TypeAlias

from bridged.errors import LocalProtocolError
from bridged.protocol.text import decode_text, printable

MAX_MESSAGE: Final = 1024
"""Bytes of the longest message that we send, NUL included."""
MAX_RECEIVED: Final = 16384
"""Bytes of plaintext that are read at once: one TLS record."""
HANDED_OVER: Final = "H"
"""Flag of a farewell: a successor continues at once, so come back without a pause."""
_MAX_SHOWN: Final = 1024
_MAX_PIECES: Final = 64
Advance: TypeAlias = Literal["no", "addr", "remote"]
"""Whom to call after a temporary refusal: the same address, the next one of the same name, another server."""
_ADVANCES: Final[dict[str, Advance]] = {"no": "no", "addr": "addr", "remote": "remote"}
_CONTROLS: Final = re.compile(rb"[\x00-\x1f\x7f]")
_FLAGS: Final = re.compile(r"\[([^\]]*)\](.*)\Z")
_TEMPORARY: Final = re.compile(r"TEMP(?:\[([^\]]*)\]:?|:|\Z)(.*)\Z")


def split_messages(data: bytes) -> list[str]:
    """Split what one TLS record holds into messages, each of which ends in NUL.

    Leaves out pieces without NUL or with control characters, and all beyond MAX_RECEIVED bytes or 64 pieces.
    """
    texts: list[str] = []
    for piece in data[:MAX_RECEIVED].split(b"\0", _MAX_PIECES)[:-1]:
        stripped = piece.rstrip(b"\r\n")
        if stripped and not _CONTROLS.search(stripped):
            texts.append(decode_text(stripped))
    return texts


class AuthFailedKind(Enum):
    """What an AUTH_FAILED asks of the client."""

    REFUSED = "refused"
    SESSION_EXPIRED = "session_expired"
    """The token ran out; log in with the password again."""
    CHALLENGE = "challenge"
    """Dynamic challenge (`CRV1:…` in the reason)."""
    TEMPORARY = "temporary"
    """Try again, no sooner than `backoff` seconds."""


@dataclass(frozen=True, slots=True)
class PushRequest:
    """The client asks for its options."""


@dataclass(frozen=True, slots=True)
class PushReply:
    """The whole text, for `push.PushReplyAssembler`. It may hold a token, so repr hides it."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthFailed:
    """`reason` is safe to print; `backoff` in seconds; `advance` and it: TEMPORARY only."""

    reason: str = ""
    kind: AuthFailedKind = AuthFailedKind.REFUSED
    backoff: int | None = None
    advance: Advance | None = None


@dataclass(frozen=True, slots=True)
class AuthPending:
    """The server waits for a second factor. `timeout` in seconds; None if it names none."""

    timeout: int | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """The client must reconnect. Flag `N`: to the next remote. Flag `P`: with the same password.

    Flag HANDED_OVER is ours, and OpenVPN ignores it: the server's successor answers at the same endpoint.
    """

    flags: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Halt:
    """The client must end."""

    flags: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """The peer leaves. `is_handed_over`: its successor calls at once (ours; OpenVPN ignores it)."""

    is_handed_over: bool = False


@dataclass(frozen=True, slots=True)
class Info:
    """For the user interface; `pre` is INFO_PRE (before authentication ends)."""

    text: str
    pre: bool = False


@dataclass(frozen=True, slots=True)
class ChallengeResponse:
    """CR_RESPONSE: answer to a challenge, base64."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message that we do not know, and ignore. `text` is safe to print."""

    text: str


Message = (
    PushRequest
    | PushReply
    | AuthFailed
    | AuthPending
    | Restart
    | Halt
    | Exit
    | Info
    | ChallengeResponse
    | Unknown
)


def parse_message(text: str) -> Message:
    """Read one message. Never fails: a message that we do not know is `Unknown`."""
    if text == "PUSH_REQUEST":
        return PushRequest()
    word, _, rest = text.partition(",")
    shown = printable(rest, _MAX_SHOWN)
    match word:
        case "PUSH_REPLY":
            return PushReply(text)
        case "AUTH_FAILED":
            return _parse_auth_failed(shown)
        case "AUTH_PENDING":
            return AuthPending(_parse_timeout(rest))
        case "RESTART":
            return Restart(*_parse_flags(shown))
        case "HALT":
            return Halt(*_parse_flags(shown))
        case "EXIT":
            return Exit(is_handed_over=rest == HANDED_OVER)
        case "INFO":
            return Info(shown)
        case "INFO_PRE":
            return Info(shown, pre=True)
        case "CR_RESPONSE":
            return ChallengeResponse(rest[:_MAX_SHOWN])
        case _:
            return Unknown(printable(text, 80))


def serialize_message(message: Message | str) -> bytes:
    """One TLS write: the text and its NUL.

    Raises:
        LocalProtocolError: control characters, or more than MAX_MESSAGE bytes.
    """
    text = message if isinstance(message, str) else _text_of(message)
    encoded = text.encode()
    if _CONTROLS.search(encoded) or len(encoded) >= MAX_MESSAGE:
        raise LocalProtocolError(f"a message of {len(encoded)} bytes, or with control characters")
    return encoded + b"\0"


def _text_of(message: Message) -> str:
    match message:
        case PushRequest():
            return "PUSH_REQUEST"
        case PushReply(text) | Unknown(text):
            return text
        case AuthFailed():
            return _join("AUTH_FAILED", _auth_failed_text(message))
        case AuthPending(timeout):
            return "AUTH_PENDING" if timeout is None else f"AUTH_PENDING,timeout {timeout}"
        case Restart(flags, text):
            return _join("RESTART", _flagged(flags, text))
        case Halt(flags, text):
            return _join("HALT", _flagged(flags, text))
        case Exit(is_handed_over):
            return _join("EXIT", HANDED_OVER) if is_handed_over else "EXIT"
        case Info(text, pre):
            return f"{'INFO_PRE' if pre else 'INFO'},{text}"
        case ChallengeResponse(text):
            return f"CR_RESPONSE,{text}"


def _join(word: str, rest: str) -> str:
    return f"{word},{rest}" if rest else word


def _flagged(flags: str, text: str) -> str:
    # Without empty brackets, a text that begins with a bracket would be read as flags.
    return f"[{flags}]{text}" if flags or text.startswith("[") else text


def _parse_auth_failed(reason: str) -> AuthFailed:
    if reason.startswith("SESSION:"):
        return AuthFailed(reason[8:].strip(), AuthFailedKind.SESSION_EXPIRED)
    if reason.startswith("CRV1:"):
        return AuthFailed(reason, AuthFailedKind.CHALLENGE)
    temporary = _TEMPORARY.match(reason)
    if temporary is None:
        return AuthFailed(reason)
    backoff: int | None = None
    advance: Advance | None = None
    for flag in (temporary[1] or "").split(","):
        key, _, value = flag.strip().partition(" ")
        if key == "backoff" and value.isascii() and value.isdigit() and len(value) < 9:
            backoff = int(value)
        elif key == "advance" and value in _ADVANCES:
            advance = _ADVANCES[value]
    return AuthFailed(temporary[2], AuthFailedKind.TEMPORARY, backoff, advance)


def _auth_failed_text(message: AuthFailed) -> str:
    if message.kind is AuthFailedKind.SESSION_EXPIRED:
        return f"SESSION: {message.reason}"
    if message.kind is not AuthFailedKind.TEMPORARY:
        return message.reason
    flags = [
        text
        for text, present in (
            (f"backoff {message.backoff}", message.backoff is not None),
            (f"advance {message.advance}", message.advance is not None),
        )
        if present
    ]
    return f"TEMP{'[' + ','.join(flags) + ']' if flags else ''}:{message.reason}"


def _parse_timeout(rest: str) -> int | None:
    for keyword in rest.split(","):
        key, _, value = keyword.partition(" ")
        if key == "timeout" and value.isascii() and value.isdigit() and len(value) < 9:
            return int(value)
    return None


def _parse_flags(rest: str) -> tuple[str, str]:
    found = _FLAGS.match(rest)
    return (found[1], found[2]) if found else ("", rest)
