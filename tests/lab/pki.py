"""A throw-away certificate authority for tests with real OpenVPN: EC P-256, valid for a day.

Not the product's embedded CA: what these tests prove must not depend on the code under test.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
VALID = 90 * DAY
"""Longer than a daemon says beforehand that a certificate ends."""
Usage = Literal["server", "client", "both", "none"]
_NETSCAPE_TYPE = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
_NETSCAPE_BITS = {"client": b"\x03\x02\x07\x80", "server": b"\x03\x02\x06\x40", "both": b"\x03\x02\x06\xc0"}


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, as PEM text; `repr` shows no key."""

    name: str
    certificate: str
    key: str
    serial: int

    def __repr__(self) -> str:
        return f"Identity({self.name})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as OpenVPN's `peer-fingerprint` writes it."""
        digest = x509.load_pem_x509_certificate(self.certificate.encode()).fingerprint(hashes.SHA256())
        return ":".join(f"{octet:02X}" for octet in digest)

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Files NAME.crt and NAME.key (0600) in `directory`."""
        certificate, key = directory / f"{self.name}.crt", directory / f"{self.name}.key"
        certificate.write_text(self.certificate)
        write_private(key, self.key)
        return certificate, key


class Authority:
    """A certificate authority: issues, revokes, and hands out its list of revoked certificates."""

    def __init__(self, name: str = "Lab CA", *, days: float = VALID / DAY) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name)
        self._revoked: list[int] = []
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            _builder(self._name, self._name, self._key.public_key(), now - DAY, now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = _pem(certificate)

    def issue(
        self,
        name: str,
        usage: Usage,
        *,
        expired: bool = False,
        days: float = VALID / DAY,
        addresses: tuple[str, ...] = (),
        subject: x509.Name | None = None,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
        netscape: Usage = "none",
    ) -> Identity:
        """A certificate with the extended key usage of a server, a client, both or none.

        `netscape`: the role that its old nsCertType names. `subject`: default CN=`name`. `key`: default a
        new P-256 one. `addresses`: IP addresses it is for.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        end = now - DAY / 2 if expired else now + days * DAY
        builder = (
            _builder(subject or _subject(name), self._name, key.public_key(), now - DAY, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        purposes = {"server": [ExtendedKeyUsageOID.SERVER_AUTH], "client": [ExtendedKeyUsageOID.CLIENT_AUTH]}
        purposes["both"] = purposes["server"] + purposes["client"]
        if usage != "none":
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes[usage]), critical=False)
        if netscape != "none":
            types = x509.UnrecognizedExtension(_NETSCAPE_TYPE, _NETSCAPE_BITS[netscape])
            builder = builder.add_extension(types, critical=False)
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Identity(name, _pem(certificate), private.decode(), certificate.serial_number)

    def revoke(self, identity: Identity) -> None:
        self._revoked.append(identity.serial)

    def revocation_list(self, days: float = VALID / DAY) -> str:
        """The CRL as PEM text, valid for so many days."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - DAY).next_update(now + days * DAY)
        for serial in self._revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY / 2)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def static_key() -> str:
    """A new 2048-bit key in OpenVPN's file format, for tls-auth and tls-crypt."""
    digits = os.urandom(256).hex()
    lines = [digits[start : start + 32] for start in range(0, len(digits), 32)]
    begin, end = "-----BEGIN OpenVPN Static key V1-----", "-----END OpenVPN Static key V1-----"
    return "\n".join([begin, *lines, end, ""])


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first moment on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
