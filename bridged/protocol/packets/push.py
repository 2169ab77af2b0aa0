"""PUSH_REPLY: the options from server to client. Joins, splits and reads them.

Source: docs/protocol/control.md#6-1; data.md#7.
Pure: text in, values out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridged.errors import ConfigurationError, RemoteProtocolError
from bridged.protocol.packets.negotiation import ProtocolFlags
from bridged.protocol.text import printable
from bridged.units import Octets, Seconds, WirePeerId

PUSH_REPLY: Final = "PUSH_REPLY"
MESSAGE_ROOM: Final = 940
"""Bytes at which a message ends and the next one begins."""
MAX_PUSH_TOTAL: Final = 64 * 1024
MAX_PUSH_OPTIONS: Final = 1024
_MORE: Final = "push-continuation 2"
_LAST: Final = "push-continuation 1"
_MAX_IGNORED_SHOWN: Final = 32
_PEER_ID_MAX: Final = 0xFFFFFF

FLAG_CC_EXIT: Final = "cc-exit"
FLAG_TLS_EKM: Final = "tls-ekm"
FLAG_DYN_TLS_CRYPT: Final = "dyn-tls-crypt"
FLAG_AEAD_EPOCH: Final = "aead-epoch"

FLAG_NEEDS: Final[dict[str, ProtocolFlags]] = {
    FLAG_CC_EXIT: ProtocolFlags.CC_EXIT,
    FLAG_TLS_EKM: ProtocolFlags.TLS_KEY_EXPORT,
    FLAG_DYN_TLS_CRYPT: ProtocolFlags.DYNAMIC_TLS_CRYPT,
    FLAG_AEAD_EPOCH: ProtocolFlags.AEAD_EPOCH,
}
"""protocol-flags keyword -> bit of IV_PROTO that the client must have announced."""


WITHOUT_EFFECT: Final = frozenset(
    (
        "dhcp-option", "explicit-exit-notify", "ifconfig", "inactive",
        "ping-exit", "route-gateway", "session-timeout",
    )
)  # fmt: skip
"""Options that OpenVPN servers often push, and that mean nothing to a bridge."""


@dataclass(slots=True)
class PushedOptions:
    """What a complete PUSH_REPLY says that matters to a bridge; None for options that it lacks."""

    ping: Seconds | None = None
    ping_restart: Seconds | None = None
    peer_id: WirePeerId | None = None
    cipher: str | None = None
    protocol_flags: frozenset[str] = frozenset()
    key_derivation: str | None = None
    tun_mtu: Octets | None = None
    compression: str | None = None
    """The `comp-lzo` or `compress` option, as pushed."""
    auth_token: str | None = field(default=None, repr=False)
    """Takes the password's place in later key messages."""
    auth_token_user: str | None = field(default=None, repr=False)
    """The user name that belongs to the token, in Base64."""
    ignored: tuple[str, ...] = ()
    """Options that are unknown or malformed, for one log line."""

    @property
    def uses_exporter(self) -> bool:
        """Data keys come from the TLS exporter, in either way of saying so."""
        return FLAG_TLS_EKM in self.protocol_flags or self.key_derivation == FLAG_TLS_EKM


class PushReplyAssembler:
    """Joins PUSH_REPLY messages until the last one; bounded in bytes and options."""

    def __init__(self) -> None:
        self._options: list[str] = []
        self._size = 0

    def add(self, text: str) -> tuple[str, ...] | None:
        """Take one message. Returns all options once they are complete, else None.

        Raises:
            RemoteProtocolError: `bad_length` for text that is no PUSH_REPLY, or beyond
                MAX_PUSH_TOTAL characters or MAX_PUSH_OPTIONS options; what was collected is gone.
        """
        head, *options = text.split(",", MAX_PUSH_OPTIONS + 1)
        self._size += len(text)
        if head != PUSH_REPLY:
            self._reset()
            raise RemoteProtocolError("bad_length", "not a PUSH_REPLY")
        if self._size > MAX_PUSH_TOTAL or len(self._options) + len(options) > MAX_PUSH_OPTIONS:
            self._reset()
            raise RemoteProtocolError("bad_length", "the pushed options are too long")
        more = False
        for option in options:
            if option == _MORE:
                more = True
            elif option and option != _LAST:
                self._options.append(option)
        if more:
            return None
        complete = tuple(self._options)
        self._reset()
        return complete

    def _reset(self) -> None:
        self._options = []
        self._size = 0


def serialize_push_reply(options: Sequence[str]) -> list[str]:
    """The messages (without NUL) that carry `options`, in order; at least one.

    Raises:
        ConfigurationError: an option that is empty, too long, has a comma or an unprintable
            character, or is `push-continuation`.
    """
    messages: list[str] = []
    current = PUSH_REPLY
    for option in options:
        _refuse_unsendable(option)
        if _octets(current) + 1 + _octets(option) >= MESSAGE_ROOM:
            messages.append(f"{current},{_MORE}")
            current = PUSH_REPLY
        current = f"{current},{option}"
    messages.append(f"{current},{_LAST}" if messages else current)
    return messages


def _refuse_unsendable(option: str) -> None:
    longest = MESSAGE_ROOM - len(PUSH_REPLY) - 2
    if not option or "," in option or not option.isprintable() or _octets(option) > longest:
        raise ConfigurationError(
            f"cannot push {option[:60]!r}: an option has 1 to {longest} bytes, no commas and no control "
            "characters",
            code="push",
        )
    if option.split()[:1] == ["push-continuation"]:
        raise ConfigurationError("push-continuation is added automatically", code="push")


def _octets(text: str) -> int:
    return len(text.encode())


def parse_pushed_options(options: Sequence[str]) -> PushedOptions:
    """Read the options of a complete reply. Unknown and malformed ones are listed in `ignored`."""
    pushed = PushedOptions()
    ignored: list[str] = []
    for option in options:
        words = option.split()
        if not words:
            continue
        if words[0] in WITHOUT_EFFECT:
            continue
        reader = _READERS.get(words[0])
        try:
            if reader is None:
                raise ValueError(words[0])
            reader(pushed, words[1:])
        except (ValueError, IndexError):
            if len(ignored) < _MAX_IGNORED_SHOWN:
                ignored.append(printable(option, 80))
    pushed.ignored = tuple(ignored)
    return pushed


def agreed_protocol_flags(wanted: Sequence[str], announced: ProtocolFlags) -> tuple[str, ...]:
    """Those of `wanted` (keywords of FLAG_NEEDS, in order) that the client announced."""
    if not announced & ProtocolFlags.CC_EXIT:
        # Without bit 7 the client does not understand protocol-flags at all.
        return ()
    return tuple(flag for flag in wanted if announced & FLAG_NEEDS[flag])


_Reader = Callable[[PushedOptions, list[str]], None]


def _number(words: list[str], low: int, high: int) -> int:
    text = words[0]
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not low <= int(text) <= high:
        raise ValueError(text)
    return int(text)


def _span(name: str) -> _Reader:
    def read(pushed: PushedOptions, words: list[str]) -> None:
        setattr(pushed, name, Seconds(_number(words, 0, 0x7FFFFFFF)))

    return read


def _word(name: str) -> _Reader:
    def read(pushed: PushedOptions, words: list[str]) -> None:
        setattr(pushed, name, printable(words[0], 1024))

    return read


def _peer_id(pushed: PushedOptions, words: list[str]) -> None:
    pushed.peer_id = WirePeerId(_number(words, 0, _PEER_ID_MAX))


def _protocol_flags(pushed: PushedOptions, words: list[str]) -> None:
    pushed.protocol_flags = frozenset(printable(word, 64) for word in words[:32])


def _tun_mtu(pushed: PushedOptions, words: list[str]) -> None:
    pushed.tun_mtu = Octets(_number(words, 68, 65535))


def _token(name: str) -> _Reader:
    def read(pushed: PushedOptions, words: list[str]) -> None:
        setattr(pushed, name, words[0])

    return read


def _compression(name: str) -> _Reader:
    def read(pushed: PushedOptions, words: list[str]) -> None:
        pushed.compression = printable(" ".join((name, *words)), 64)

    return read


_READERS: Final[dict[str, _Reader]] = {
    "ping": _span("ping"),
    "ping-restart": _span("ping_restart"),
    "peer-id": _peer_id,
    "cipher": _word("cipher"),
    "protocol-flags": _protocol_flags,
    "key-derivation": _word("key_derivation"),
    "tun-mtu": _tun_mtu,
    "auth-token": _token("auth_token"),
    "auth-token-user": _token("auth_token_user"),
    "comp-lzo": _compression("comp-lzo"),
    "compress": _compression("compress"),
}
