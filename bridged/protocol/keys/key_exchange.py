"""Key method 2: the first message in each direction of every TLS session.

Source: docs/protocol/control.md#5.
Pure: bytes in, values out; random bytes come from the caller. One TLS write is one message.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.text import decode_text

PRE_MASTER_LENGTH: Final = 48
RANDOM_LENGTH: Final = 32
MAX_CREDENTIAL: Final = 127
"""Bytes of a user name or password; longer ones get AUTH_FAILED (docs/protocol/control.md#5)."""
MAX_KEY_MESSAGE: Final = 16384
"""Bytes: one TLS record. Anything larger is refused."""

_PREFIX: Final = bytes(4)
_KEY_METHOD: Final = 2
_STRINGS: Final = 4
_MAX_STRING: Final = 0xFFFF


class IncompleteKeyMessage(RemoteProtocolError):
    """The message ends inside a field."""

    def __init__(self, detail: str) -> None:
        super().__init__("bad_length", f"the key message is incomplete: {detail}")


@dataclass(frozen=True, slots=True)
class ClientKeyMessage:
    """What the client sends: 48 + 32 + 32 random bytes and four strings ("" if absent).

    Strings are decoded UTF-8 and end at the first NUL; `username` and `password` longer than
    MAX_CREDENTIAL bytes must be refused with AUTH_FAILED (`has_overlong_credentials`).
    """

    pre_master: bytes = field(repr=False)
    random1: bytes = field(repr=False)
    random2: bytes = field(repr=False)
    options: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    peer_info: str = ""

    @property
    def has_overlong_credentials(self) -> bool:
        return any(len(text.encode()) > MAX_CREDENTIAL for text in (self.username, self.password))


@dataclass(frozen=True, slots=True)
class ServerKeyMessage:
    """What the server sends: 32 + 32 random bytes and four strings ("" if absent)."""

    random1: bytes = field(repr=False)
    random2: bytes = field(repr=False)
    options: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    peer_info: str = ""


def parse_client_key_message(data: bytes) -> ClientKeyMessage:
    """Read the client's message; it may end after any string.

    Raises:
        IncompleteKeyMessage (a RemoteProtocolError, `bad_length`): cut off inside a field.
        RemoteProtocolError: `bad_length` for another key method, wrong first bytes, or more than
            MAX_KEY_MESSAGE bytes.
    """
    (pre_master, random1, random2), position = _parse_randoms(
        data, (PRE_MASTER_LENGTH, RANDOM_LENGTH, RANDOM_LENGTH)
    )
    texts, _ = _parse_strings(data, position)
    return ClientKeyMessage(pre_master, random1, random2, *texts)


def parse_server_key_message(data: bytes) -> ServerKeyMessage:
    """Read the server's message; it may end after any string.

    Raises:
        As `parse_client_key_message`.
    """
    return split_server_key_message(data)[0]


def split_server_key_message(data: bytes) -> tuple[ServerKeyMessage, bytes]:
    """As `parse_server_key_message`, and the bytes after the fourth string.

    A PUSH_REPLY may follow at once, in the same TLS record (docs/protocol/control.md#10, trap 11).
    """
    (random1, random2), position = _parse_randoms(data, (RANDOM_LENGTH, RANDOM_LENGTH))
    texts, end = _parse_strings(data, position)
    return ServerKeyMessage(random1, random2, *texts), bytes(data[end:])


def serialize_client_key_message(message: ClientKeyMessage) -> bytes:
    """One TLS write. Empty strings go as length 0.

    Raises:
        LocalProtocolError: a field of the wrong length, a NUL inside a string, or too long.
    """
    return _serialize(
        ((message.pre_master, PRE_MASTER_LENGTH), *_randoms(message)),
        (message.options, message.username, message.password, message.peer_info),
    )


def serialize_server_key_message(message: ServerKeyMessage) -> bytes:
    """One TLS write. Empty strings go as length 0.

    Raises:
        As `serialize_client_key_message`.
    """
    return _serialize(
        _randoms(message), (message.options, message.username, message.password, message.peer_info)
    )


def _randoms(message: ClientKeyMessage | ServerKeyMessage) -> tuple[tuple[bytes, int], ...]:
    return (message.random1, RANDOM_LENGTH), (message.random2, RANDOM_LENGTH)


def _parse_randoms(data: bytes, lengths: tuple[int, ...]) -> tuple[list[bytes], int]:
    if len(data) > MAX_KEY_MESSAGE:
        raise RemoteProtocolError("bad_length", f"a key message of {len(data)} bytes")
    position = len(_PREFIX) + 1
    if data[: len(_PREFIX)] != _PREFIX[: len(data)]:
        raise RemoteProtocolError("bad_length", "a key message begins with four zero bytes")
    if len(data) >= position and data[position - 1] & 0x0F != _KEY_METHOD:
        raise RemoteProtocolError(
            "bad_length", f"key method {data[position - 1] & 0x0F}; only 2 is supported"
        )
    if len(data) < position + sum(lengths):
        raise IncompleteKeyMessage(f"{len(data)} bytes hold no random values")
    fields: list[bytes] = []
    for length in lengths:
        fields.append(bytes(data[position : position + length]))
        position += length
    return fields, position


def _parse_strings(data: bytes, position: int) -> tuple[tuple[str, str, str, str], int]:
    texts = [""] * _STRINGS
    for index in range(_STRINGS):
        if position == len(data):
            break
        if len(data) < position + 2:
            raise IncompleteKeyMessage("it ends inside the length of a string")
        (length,) = struct.unpack_from(">H", data, position)
        position += 2
        if len(data) < position + length:
            raise IncompleteKeyMessage(f"string {index + 1} announces {length} bytes")
        texts[index] = decode_text(bytes(data[position : position + length]).split(b"\0", 1)[0])
        position += length
    return (texts[0], texts[1], texts[2], texts[3]), position


def _serialize(fixed: tuple[tuple[bytes, int], ...], texts: tuple[str, ...]) -> bytes:
    parts = [_PREFIX, bytes((_KEY_METHOD,))]
    for value, length in fixed:
        if len(value) != length:
            raise LocalProtocolError(f"a random value has {length} bytes, not {len(value)}")
        parts.append(value)
    for text in texts:
        encoded = text.encode() + b"\0" if text else b""
        if b"\0" in encoded[:-1] or len(encoded) > _MAX_STRING:
            raise LocalProtocolError("a string of the key message contains NUL or is too long")
        parts.append(struct.pack(">H", len(encoded)) + encoded)
    message = b"".join(parts)
    if len(message) > MAX_KEY_MESSAGE:
        raise LocalProtocolError(f"a key message of {len(message)} bytes does not fit one TLS record")
    return message
