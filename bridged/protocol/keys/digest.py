"""Digests that `auth` may name.

Source: docs/protocol/control.md#2-3.
Pure: a table.
"""

from __future__ import annotations

from typing import Final

from bridged.errors import ConfigurationError

DIGESTS: Final[dict[str, tuple[str, int]]] = {
    "SHA1": ("sha1", 20),
    "SHA224": ("sha224", 28),
    "SHA256": ("sha256", 32),
    "SHA384": ("sha384", 48),
    "SHA512": ("sha512", 64),
}
"""Name in configuration and options string -> (hashlib name, bytes)."""


def parse_digest(name: str) -> str:
    """Normalise the name of a digest: `sha-256` gives `SHA256`.

    Raises:
        ConfigurationError: not one of DIGESTS.
    """
    normal = name.upper().replace("-", "").removeprefix("RSA")
    if normal not in DIGESTS:
        known = ", ".join(DIGESTS)
        raise ConfigurationError(f"digest {name!r} is not offered; choose one of {known}", code="digest")
    return normal


def digest_length(name: str) -> int:
    """Bytes of a digest, by its normalised name."""
    return DIGESTS[name][1]
