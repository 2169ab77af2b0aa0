"""The embedded CA in the state folder: issues and revokes certificates, signs the revocation list."""

from bridged.files import PRIVATE_FILE, PUBLIC_FILE, make_private_directory, write_atomic
from bridged.pki.authority import EmbeddedCa, IssuedIdentity, check_name, embedded_tls_material
from bridged.pki.errors import PkiError
from bridged.pki.folder import (
    lock_state,
    pki_directory,
    refused_keys_path,
    tls_crypt_key_path,
    tls_crypt_v2_key_path,
)

__all__ = [
    "PRIVATE_FILE",
    "PUBLIC_FILE",
    "EmbeddedCa",
    "IssuedIdentity",
    "PkiError",
    "check_name",
    "embedded_tls_material",
    "lock_state",
    "make_private_directory",
    "pki_directory",
    "refused_keys_path",
    "tls_crypt_key_path",
    "tls_crypt_v2_key_path",
    "write_atomic",
]
