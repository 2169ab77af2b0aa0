"""The keys of tls-crypt-v2: the server's, each client's, and the client's as only the server can read it.

Source: docs/protocol/control.md#2-5.
Pure: bytes and text in, values out; random bytes come from the caller.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bridged.errors import ConfigurationError, RemoteProtocolError
from bridged.protocol.keys.counter_mode import CounterMode
from bridged.protocol.keys.static_key import STATIC_KEY_LENGTH, StaticKey

SERVER_KEY_LENGTH: Final = 128
LENGTH_FIELD: Final = 2
WRAPPED_LEAST: Final = 290
WRAPPED_MOST: Final = 1024
METADATA_MOST: Final = 734
"""Bytes, the type included."""
METADATA_USER: Final = 0
METADATA_TIME: Final = 1
"""Metadata: 8 bytes, the Unix time at which the key was made."""
IDENTIFIER_OCTETS: Final = 16
_TIME: Final = 8
_TAG: Final = 32
_BLOCK: Final = 16
_KEY: Final = 32
_SERVER_LABEL: Final = "OpenVPN tls-crypt-v2 server key"
_CLIENT_LABEL: Final = "OpenVPN tls-crypt-v2 client key"
_LINE: Final = 64


@dataclass(frozen=True, slots=True)
class UnwrappedKey:
    """A client's key as the server reads it. `metadata` begins behind its type (None: there is none)."""

    key: StaticKey = field(repr=False)
    identifier: str
    metadata_type: int | None
    metadata: bytes

    @property
    def made_at(self) -> int | None:
        """Unix time, where the metadata say it."""
        if self.metadata_type != METADATA_TIME or len(self.metadata) < _TIME:
            return None
        return int.from_bytes(self.metadata[:_TIME], "big", signed=True)


@dataclass(frozen=True, slots=True)
class ClientWrapKey:
    """What a client has: its key, and the same sealed for the server."""

    key: StaticKey = field(repr=False)
    wrapped: bytes = field(repr=False)

    @property
    def identifier(self) -> str:
        """Names this key in lists of refused ones; no secret."""
        return identify(self.wrapped)

    def serialize(self) -> str:
        """The text of OpenVPN's file."""
        return _serialize(_CLIENT_LABEL, self.key.octets + self.wrapped)


class ServerWrapKey:
    """Seals the keys of clients, and opens them. Never shown by repr.

    Raises:
        ValueError: not 128 bytes.
    """

    def __init__(self, octets: bytes) -> None:
        if len(octets) != SERVER_KEY_LENGTH:
            raise ValueError(f"a server key has {SERVER_KEY_LENGTH} bytes, not {len(octets)}")
        self._octets = bytes(octets)
        self._encrypt, self._authenticate = octets[:_KEY], octets[64 : 64 + _KEY]
        self._cipher = CounterMode(self._encrypt)

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> ServerWrapKey:
        """Make a new key; `random_bytes(n)` must return n bytes of a CSPRNG."""
        return cls(random_bytes(SERVER_KEY_LENGTH))

    @property
    def secrets(self) -> tuple[bytes, bytes]:
        """The keys of HMAC and AES."""
        return self._authenticate, self._encrypt

    def make_client_key(
        self, random_bytes: Callable[[int], bytes], made_at: int, metadata: bytes | None = None
    ) -> ClientWrapKey:
        """A new client's key. `metadata`: free data in place of `made_at`, a Unix time."""
        key = StaticKey.generate(random_bytes)
        if metadata is None:
            typed = bytes((METADATA_TIME,)) + struct.pack(">Q", made_at)
        else:
            typed = bytes((METADATA_USER,)) + metadata
        return ClientWrapKey(key, self.wrap(key, typed))

    def wrap(self, key: StaticKey, metadata: bytes) -> bytes:
        """Seal a client's key and its metadata, which begin with their type.

        Raises:
            ConfigurationError: the metadata are too long.
        """
        if len(metadata) > METADATA_MOST:
            raise ConfigurationError(
                f"metadata have at most {METADATA_MOST - 1} bytes, not {len(metadata) - 1}", code="static_key"
            )
        plain = key.octets + metadata
        length = (_TAG + len(plain) + LENGTH_FIELD).to_bytes(LENGTH_FIELD, "big")
        tag = hmac.digest(self._authenticate, length + plain, "sha256")
        return tag + self._apply_cipher(tag, plain) + length

    def unwrap(self, wrapped: bytes) -> UnwrappedKey:
        """Open a client's key.

        Raises:
            RemoteProtocolError: `bad_length`; `wrap_mismatch`, it was not sealed with this key.
        """
        if not WRAPPED_LEAST <= len(wrapped) <= WRAPPED_MOST:
            raise RemoteProtocolError("bad_length", f"a wrapped client key of {len(wrapped)} bytes")
        tag, length = wrapped[:_TAG], wrapped[-LENGTH_FIELD:]
        plain = self._apply_cipher(tag, wrapped[_TAG:-LENGTH_FIELD])
        if int.from_bytes(length, "big") != len(wrapped) or not hmac.compare_digest(
            hmac.digest(self._authenticate, length + plain, "sha256"), tag
        ):
            raise RemoteProtocolError("wrap_mismatch", "the client key belongs to another server key")
        metadata = plain[STATIC_KEY_LENGTH:]
        return UnwrappedKey(
            StaticKey(plain[:STATIC_KEY_LENGTH]),
            identify(wrapped),
            metadata[0] if metadata else None,
            metadata[1:],
        )

    def serialize(self) -> str:
        """The text of OpenVPN's file."""
        return _serialize(_SERVER_LABEL, self._octets)

    def _apply_cipher(self, tag: bytes, data: bytes) -> bytes:
        return self._cipher.apply(tag[:_BLOCK], data)

    def __repr__(self) -> str:
        return "ServerWrapKey()"


def identify(wrapped: bytes) -> str:
    """The name of a wrapped key: its tag, an HMAC of the key, shortened. It is sent in clear: no secret."""
    return wrapped[:IDENTIFIER_OCTETS].hex()


def parse_server_key(text: str, source_name: str) -> ServerWrapKey:
    """Read OpenVPN's file; `source_name` names it in errors.

    Raises:
        ConfigurationError: it holds something else.
    """
    octets = _parse(text, _SERVER_LABEL, source_name)
    if len(octets) != SERVER_KEY_LENGTH:
        raise _wrong(f"a server key has {SERVER_KEY_LENGTH} bytes, not {len(octets)}", source_name)
    return ServerWrapKey(octets)


def parse_client_key(text: str, source_name: str) -> ClientWrapKey:
    """Read OpenVPN's file, or inline block; `source_name` names it in errors.

    Raises:
        ConfigurationError: it holds something else.
    """
    octets = _parse(text, _CLIENT_LABEL, source_name)
    wrapped = octets[STATIC_KEY_LENGTH:]
    if not WRAPPED_LEAST <= len(wrapped) <= WRAPPED_MOST:
        raise _wrong(f"{len(octets)} bytes hold no client key; is the text complete?", source_name)
    if int.from_bytes(wrapped[-LENGTH_FIELD:], "big") != len(wrapped):
        raise _wrong("the client key has another length than it says; is the text complete?", source_name)
    return ClientWrapKey(StaticKey(octets[:STATIC_KEY_LENGTH]), wrapped)


def _serialize(label: str, octets: bytes) -> str:
    text = base64.b64encode(octets).decode()
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))


def _parse(text: str, label: str, source_name: str) -> bytes:
    block, end, _ = text.partition(f"-----BEGIN {label}-----")[2].partition(f"-----END {label}-----")
    if not end:
        other = next((kind for kind in (_SERVER_LABEL, _CLIENT_LABEL) if f"BEGIN {kind}" in text), None)
        if other not in (None, label):
            raise _wrong(f"this is an {other}, and an {label} is needed", source_name)
        raise _wrong(f"no block `-----BEGIN {label}-----` to its END", source_name)
    try:
        return base64.b64decode("".join(block.split()), validate=True)
    except binascii.Error:
        raise _wrong("the text between BEGIN and END is no base64", source_name) from None


def _wrong(reason: str, source_name: str) -> ConfigurationError:
    return ConfigurationError(reason, file=source_name, code="static_key")
