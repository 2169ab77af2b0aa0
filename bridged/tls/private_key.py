"""Encrypted private keys. No files, no sockets."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import crypto

from bridged.errors import ConfigurationError


def without_password(pem: bytes, password: bytes | None) -> bytes:
    """The same key as PKCS#8 PEM, not encrypted.

    Raises:
        ConfigurationError: the password is wrong, or it is no key.
    """
    try:
        key = _load(pem, password or b"")
    except Exception as error:  # the libraries raise several unrelated types for unreadable keys
        raise ConfigurationError(
            "cannot be opened with this password; try `openssl pkey -in OLD -out NEW`, which asks for it and "
            "writes the key without one"
        ) from error
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load(pem: bytes, password: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password)
    except Exception:  # OpenSSL itself knows more ciphers: Camellia, ARIA
        key: PrivateKeyTypes = crypto.load_privatekey(
            crypto.FILETYPE_PEM, pem, password
        ).to_cryptography_key()
        return key
