"""Embedded CA under the state folder: make, issue, revoke, revocation list."""

from bridged.files import PRIVATE_FILE, PUBLIC_FILE, make_private_directory, write_atomic
from bridged.pki.authority import (
    EmbeddedCa,
    IssuedIdentity,
    check_name,
    embedded_tls_material,
    pki_directory,
    tls_crypt_key_path,
)
from bridged.pki.files import PkiError

__all__ = [
    "PRIVATE_FILE",
    "PUBLIC_FILE",
    "EmbeddedCa",
    "IssuedIdentity",
    "PkiError",
    "check_name",
    "embedded_tls_material",
    "make_private_directory",
    "pki_directory",
    "tls_crypt_key_path",
    "write_atomic",
]
