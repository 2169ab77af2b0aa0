"""Ciphers of the data channel, by their names on the wire.

Source: docs/protocol/control.md#7; data.md#1-2.
Pure: a table.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from bridged.errors import ConfigurationError


class Cipher(Enum):
    """The value is its name in peer info, options string and PUSH_REPLY. CBC ciphers go with an HMAC."""

    AES_256_GCM = "AES-256-GCM"
    AES_192_GCM = "AES-192-GCM"
    AES_128_GCM = "AES-128-GCM"
    CHACHA20_POLY1305 = "CHACHA20-POLY1305"
    AES_256_CBC = "AES-256-CBC"
    AES_192_CBC = "AES-192-CBC"
    AES_128_CBC = "AES-128-CBC"

    @property
    def key_length(self) -> int:
        """Bytes of the key."""
        return _KEY_LENGTH[self]

    @property
    def is_aes_gcm(self) -> bool:
        """The AEAD usage limit of data.md#3-3 applies."""
        return self.value.endswith("-GCM")

    @property
    def is_cbc(self) -> bool:
        """It has no tag of its own: an HMAC authenticates its packets (data.md#2-2)."""
        return self.value.endswith("-CBC")

    @classmethod
    def find(cls, name: str) -> Cipher | None:
        """The cipher with this name, in any case, or with this alias; None if we do not offer it."""
        return _BY_NAME.get(normalise_cipher_name(name))

    @classmethod
    def parse(cls, name: str) -> Cipher:
        """As `find`, for configuration.

        Raises:
            ConfigurationError: it is not offered. The message names those that are.
        """
        cipher = cls.find(name)
        if cipher is None:
            offered = ", ".join(known.value for known in cls)
            raise ConfigurationError(f"cipher {name!r} is not offered; choose from {offered}", code="cipher")
        return cipher

    def __str__(self) -> str:
        return self.value


_KEY_LENGTH: Final = {
    Cipher.AES_256_GCM: 32,
    Cipher.AES_192_GCM: 24,
    Cipher.AES_128_GCM: 16,
    Cipher.CHACHA20_POLY1305: 32,
    Cipher.AES_256_CBC: 32,
    Cipher.AES_192_CBC: 24,
    Cipher.AES_128_CBC: 16,
}
_BY_NAME: Final = {cipher.value: cipher for cipher in Cipher}
_ALIASES: Final = {
    "ID-AES128-GCM": "AES-128-GCM",
    "ID-AES192-GCM": "AES-192-GCM",
    "ID-AES256-GCM": "AES-256-GCM",
    "AES128-GCM": "AES-128-GCM",
    "AES192-GCM": "AES-192-GCM",
    "AES256-GCM": "AES-256-GCM",
    "CHACHA20POLY1305": "CHACHA20-POLY1305",
}

DEFAULT_CIPHERS: Final = (Cipher.AES_256_GCM, Cipher.AES_128_GCM, Cipher.CHACHA20_POLY1305)


def normalise_cipher_name(name: str) -> str:
    """The name for comparisons: in upper case, with aliases of TLS libraries resolved."""
    upper = name.strip().upper()
    return _ALIASES.get(upper, upper)
