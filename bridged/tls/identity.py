"""Certificates and keys from the configuration: the name of a file, or the PEM text itself.

Reads files, uses no sockets. Secrets are kept in bytearrays, which can be wiped.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bridged.errors import ConfigurationError
from bridged.files import open_to_read, why_unreadable
from bridged.units import UnixSeconds

PEM_OCTETS_MAX: Final = 4 * 1024 * 1024
_PEM_MARK: Final = b"-----BEGIN "
_CERTIFICATE_MARK: Final = b"-----BEGIN CERTIFICATE-----"
_FINGERPRINT_OCTETS: Final = 32


def read_pem(value: str, key: str, base: Path | None = None) -> bytes:
    """The PEM bytes that a configuration value stands for: itself, or the content of a file.

    `key` is the dotted path of the configuration key, for errors. A relative path begins at `base` (None: the
    working directory).

    Raises:
        ConfigurationError: the file cannot be read, is too large, or has no PEM block.
    """
    path = None if _is_inline(value) else _path(value, base)
    content = value.strip().encode() + b"\n" if path is None else _read(path, key)
    if _PEM_MARK not in content:
        raise ConfigurationError(
            "no PEM block in it (no line `-----BEGIN …`); convert it with `openssl x509` or `openssl pkey`",
            file=path,
            key=key,
        )
    return content


def read_private_pem(value: str, key: str, base: Path | None = None) -> bytearray:
    """As `read_pem`, for secrets; `wipe` the result after use."""
    return bytearray(read_pem(value, key, base))


def wipe(secret: bytearray) -> None:
    """Overwrite with zeros. Copies that libraries made remain."""
    secret[:] = bytes(len(secret))


def load_certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    """All certificates of a PEM text, in its order; at least one. `what` names the text in errors.

    Raises:
        ConfigurationError: there is none, or one cannot be parsed.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigurationError(_no_certificate(pem), key=what) from error
    return certificates


def _no_certificate(pem: bytes) -> str:
    """The parser's own message does not help, and points to the parser's web page."""
    if _CERTIFICATE_MARK in pem:
        return "not a PEM certificate: it is damaged or cut off"
    wrong = "a private key, " if b"PRIVATE KEY-----" in pem else ""
    return f"{wrong}not a PEM certificate; that begins with `{_CERTIFICATE_MARK.decode()}`"


def load_revocation_lists(pem: bytes) -> list[x509.CertificateRevocationList]:
    """All revocation lists of a PEM text; at least one.

    Raises:
        ConfigurationError: there is none, or one cannot be parsed.
    """
    end = b"-----END X509 CRL-----"
    blocks = [block + end for block in pem.split(end) if b"-----BEGIN X509 CRL-----" in block]
    try:
        lists = [x509.load_pem_x509_crl(block) for block in blocks]
    except ValueError as error:
        raise ConfigurationError(f"not a PEM revocation list ({error})", key="tls.crl") from error
    if not lists:
        raise ConfigurationError("no block `-----BEGIN X509 CRL-----` in it", key="tls.crl")
    return lists


def crl_next_update(pem: bytes) -> UnixSeconds | None:
    """When the first of the revocation lists expires; None if none does.

    Raises:
        ConfigurationError: no list in it.
    """
    moments = [crl.next_update_utc for crl in load_revocation_lists(pem)]
    ends = [moment.timestamp() for moment in moments if moment is not None]
    return UnixSeconds(min(ends)) if ends else None


def certificate_not_after(pem: bytes) -> UnixSeconds:
    """When the first certificate of the text expires.

    Raises:
        ConfigurationError: no certificate in it.
    """
    return not_after(load_certificates(pem, "certificate")[0])


def chain_not_after(pem: bytes) -> UnixSeconds:
    """When the first certificate of a chain expires: from then on peers refuse the whole chain.

    Raises:
        ConfigurationError: no certificate in it.
    """
    return min(not_after(certificate) for certificate in load_certificates(pem, "certificate"))


def not_after(certificate: x509.Certificate) -> UnixSeconds:
    """When the certificate expires."""
    return UnixSeconds(certificate.not_valid_after_utc.timestamp())


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER form, 64 hex digits in lower case."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def parse_fingerprint(text: str, key: str = "tls.peer_fingerprints") -> bytes:
    """The 32 bytes of a SHA-256 fingerprint in hex digits; colons and blanks between them are allowed.

    Raises:
        ConfigurationError: not 64 hex digits.
    """
    digits = "".join(text.replace(":", " ").split())
    try:
        octets = bytes.fromhex(digits)
    except ValueError:
        octets = b""
    if len(octets) != _FINGERPRINT_OCTETS:
        raise ConfigurationError(
            f"{text!r} is not a SHA-256 fingerprint (64 hex digits); "
            "print it with `openssl x509 -noout -fingerprint -sha256 -in FILE`",
            key=key,
        )
    return octets


def _is_inline(value: str) -> bool:
    return "\n" in value or value.startswith(_PEM_MARK.decode())


def _path(value: str, base: Path | None) -> Path:
    path = Path(value)
    return path if base is None or path.is_absolute() else base / path


def _read(path: Path, key: str) -> bytes:
    try:
        with open_to_read(path) as file:
            content = file.read(PEM_OCTETS_MAX + 1)
    except (OSError, ValueError) as error:
        reason = why_unreadable(path, error)
        raise ConfigurationError(f"cannot read the file: {reason}", file=path, key=key) from error
    if len(content) > PEM_OCTETS_MAX:
        raise ConfigurationError(f"larger than {PEM_OCTETS_MAX} bytes", file=path, key=key)
    return content
