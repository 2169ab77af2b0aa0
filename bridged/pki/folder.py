"""What the embedded CA keeps in STATE/pki, and how it is read.

Files: ca.crt, ca.key, server.crt, server.key, tls-crypt.key, tls-crypt-v2.key, index.json,
issued/NAME.crt, and crl.pem once something was revoked. Private files have mode 0600. Clients' private keys
are not kept: only invitations have them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bridged.files import make_private_directory
from bridged.pki.errors import PkiError, closed
from bridged.pki.index import Index, read_index, write_index
from bridged.pki.lock import locked


def pki_directory(state_directory: Path) -> Path:
    return state_directory / "pki"


def tls_crypt_key_path(state_directory: Path) -> Path:
    """Where the embedded tls-crypt key is."""
    return CaFolder(pki_directory(state_directory)).tls_crypt_key


def tls_crypt_v2_key_path(state_directory: Path) -> Path:
    """Where the embedded tls-crypt-v2 server key is, with which invitations get keys of their own."""
    return CaFolder(pki_directory(state_directory)).tls_crypt_v2_key


def refused_keys_path(state_directory: Path) -> Path:
    """The list of refused tls-crypt-v2 client keys: a line each, `IDENTIFIER NAME`."""
    return state_directory / "refused-keys"


def lock_state(state_directory: Path) -> AbstractContextManager[None]:
    """Hold the lock under which the CA of this state folder is changed; make the folder if it is missing.

    Raises:
        PkiError: `pki_locked`, another process holds it.
    """
    make_private_directory(state_directory)
    return locked(state_directory / ".pki.lock")


class CaFolder:
    """Paths and contents of one CA's folder; it need not be complete.

    Raises:
        PkiError: `pki_damaged`, a file is missing or is not what it should be.
        OSError: a file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca_certificate = path / "ca.crt"
        self.ca_key = path / "ca.key"
        self.server_certificate = path / "server.crt"
        self.server_key = path / "server.key"
        self.tls_crypt_key = path / "tls-crypt.key"
        self.tls_crypt_v2_key = path / "tls-crypt-v2.key"
        self.revocation_list = path / "crl.pem"
        self.issued = path / "issued"
        self._index = path / "index.json"

    def read_index(self) -> Index:
        return read_index(self._index)

    def write_index(self, index: Index) -> None:
        write_index(self._index, index)

    def read_authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """The CA's certificate and its key, which belong together."""
        certificate = read_certificate(self.ca_certificate)
        key = read_key(self.ca_key)
        if key.public_key() != certificate.public_key():
            raise PkiError(
                "pki_damaged", f"{self.path}: ca.key does not belong to ca.crt; restore both from one backup"
            )
        return certificate, key

    def read_server_certificate(self) -> x509.Certificate | None:
        """The server's certificate; None if it, or the key that belongs to it, is missing."""
        if not self.server_certificate.exists() or not self.server_key.exists():
            return None
        certificate = read_certificate(self.server_certificate)
        return certificate if certificate.public_key() == read_key(self.server_key).public_key() else None


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PkiError("pki_damaged", f"{path} is missing; restore it from a backup") from None
    except PermissionError:
        raise closed(path) from None


def read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_file(path))
    except ValueError as error:
        raise PkiError("pki_damaged", f"{path}: not a certificate; restore it from a backup") from error


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(read_file(path), password=None)
    except (ValueError, TypeError) as error:
        raise PkiError("pki_damaged", f"{path}: not a private key; restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError("pki_damaged", f"{path}: not an EC key; bridged did not make this CA")
    return key
