"""The chain of keys of the epoch format: each epoch has a key of its own, made from the one before.

Source: docs/protocol/data.md#2-3.
Pure: secrets in, secrets out.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from bridged.protocol.keys.cipher import Cipher

SECRET_OCTETS: Final = 32
NONCE_OCTETS: Final = 12
LAST_EPOCH: Final = 0xFFFF
RENEGOTIATE_EPOCH: Final = 0xF000
"""Renegotiate from this epoch on."""
FUTURE_EPOCHS: Final = 4
"""How many epochs a receiver is ahead."""


def expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand of RFC 5869 with SHA-256, and the info of TLS 1.3 with another prefix; 1 to 32 bytes."""
    name = b"ovpn " + label.encode()
    info = length.to_bytes(2, "big") + bytes((len(name),)) + name + b"\0"
    return hmac.digest(secret, info + b"\x01", "sha256")[:length]


@dataclass(frozen=True, slots=True)
class EpochKey:
    """Cipher key and IV of one epoch in one direction."""

    epoch: int
    secret: bytes = field(repr=False)
    cipher: Cipher

    @property
    def cipher_key(self) -> bytes:
        return expand(self.secret, "data_key", self.cipher.key_length)

    @property
    def iv(self) -> bytes:
        return expand(self.secret, "data_iv", NONCE_OCTETS)

    def next(self) -> EpochKey:
        """That of the epoch after this one."""
        return EpochKey(self.epoch + 1, expand(self.secret, "datakey upd", SECRET_OCTETS), self.cipher)
