"""PKCS#12 files (`.p12`, `.pfx`): CA, certificate and key as PEM.

No files, no sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from bridged.errors import ConfigurationError

# DER of pbeWithSHAAnd128BitRC4, 40BitRC4, 128BitRC2-CBC, 40BitRC2-CBC (RFC 7292, appendix C). OpenSSL 3 has
# them only with `-legacy`.
_PBE: Final = bytes.fromhex("060a2a864886f70d010c01")
_LEGACY: Final = tuple(_PBE + bytes([number]) for number in (1, 2, 5, 6))


@dataclass(frozen=True, slots=True)
class Pkcs12:
    """`ca_pem`: all other certificates of the file, in its order; may be empty."""

    certificate_pem: bytes
    ca_pem: bytes
    key_pem: bytes = field(repr=False)


def needs_password(content: bytes) -> bool:
    """Whether it is a PKCS#12 file that cannot be opened without a password."""
    try:
        pkcs12.load_pkcs12(content, None)
    except Exception:  # the library raises several unrelated types for unreadable files
        return content.startswith(b"\x30")
    return False


def read_pkcs12(content: bytes, name: str, password: bytes | None = None) -> Pkcs12:
    """Read a file. `name` is the file's, for the command in error messages.

    Raises:
        ConfigurationError: it is no PKCS#12 file, has another password, or has no certificate with its key.
            The message says what to do.
    """
    if is_legacy(content):
        raise ConfigurationError(
            "is encrypted by RC2 or RC4, as old programs did; OpenVPN with OpenSSL 3 cannot open it either. "
            f"{_conversion(content, name)}"
        )
    try:
        found = pkcs12.load_pkcs12(content, password)
    except Exception as error:  # the library raises several unrelated types for unreadable files
        if not content.startswith(b"\x30"):
            raise ConfigurationError("is not a PKCS#12 file") from error
        why = "without a password" if password is None else "with this password"
        raise ConfigurationError(
            f"cannot be opened {why}. Give the right one by `--password-file FILE`. Or: "
            f"{_conversion(content, name)}"
        ) from error
    if found.cert is None or found.key is None:
        raise ConfigurationError("holds no certificate with its private key")
    return Pkcs12(
        certificate_pem=found.cert.certificate.public_bytes(Encoding.PEM),
        ca_pem=b"".join(one.certificate.public_bytes(Encoding.PEM) for one in found.additional_certs),
        key_pem=found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def is_legacy(content: bytes) -> bool:
    """Whether a cipher of it is one that OpenSSL 3 has left to its legacy provider."""
    return any(kind in content for kind in _LEGACY)


def _conversion(content: bytes, name: str) -> str:
    return (
        f"Write a copy without a password, and use that: `{copy_command(content, name)}`; delete all.pem and "
        "the copy once you have joined"
    )


def copy_command(content: bytes, name: str) -> str:
    """The shell command that writes a copy without a password. It asks for the present one."""
    legacy = " -legacy" if is_legacy(content) else ""
    return (
        f"openssl pkcs12{legacy} -in {name} -noenc -out all.pem && "
        "openssl pkcs12 -export -in all.pem -passout pass: -out open.p12"
    )
