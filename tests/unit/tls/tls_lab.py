"""Certificates for the TLS tests, made once per run by the product's own builder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from bridged.pki.certificates import (
    Validity,
    build_authority,
    build_certificate,
    build_revocation_list,
    certificate_pem,
    generate_key,
    key_pem,
)
from bridged.protocol.session.tls_session import TlsEngine
from bridged.tls import TlsSettings, make_engine_factory
from bridged.tls.identity import fingerprint

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
VALID = Validity(NOW - DAY, NOW + 30 * DAY)
EXPIRED = Validity(NOW - 30 * DAY, NOW - DAY)


@dataclass(frozen=True)
class Identity:
    certificate: x509.Certificate
    certificate_pem: bytes
    key_pem: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)


@dataclass
class Authority:
    name: str = "Test CA"
    key: Any = field(default_factory=generate_key)

    def __post_init__(self) -> None:
        self.certificate = build_authority(self.name, self.key, VALID)
        self.pem = certificate_pem(self.certificate)

    def issue(self, name: str, usage: Any, validity: Validity = VALID) -> Identity:
        key = generate_key()
        certificate = build_certificate(name, key.public_key(), usage, self.certificate, self.key, validity)
        return Identity(certificate, certificate_pem(certificate), key_pem(key))

    def revocation_list(self, revoked: Iterable[Identity], validity: Validity = VALID) -> bytes:
        rows = [(identity.certificate.serial_number, NOW) for identity in revoked]
        return build_revocation_list(rows, 1, self.certificate, self.key, validity).public_bytes(Encoding.PEM)


@dataclass
class Pair:
    """Two engines and the wire between them; `step` bytes are carried at a time."""

    client: TlsEngine
    server: TlsEngine
    step: int = 65536
    carried: int = 0

    def carry(self, source: TlsEngine, sink: TlsEngine) -> bool:
        octets = source.take_ciphertext()
        self.carried += len(octets)
        for start in range(0, len(octets), self.step):
            sink.receive(octets[start : start + self.step])
        return bool(octets)

    def run(self) -> None:
        """Carry both ways until nothing is left; TlsErrors come out."""
        self.client.start()
        self.server.start()
        for _ in range(100):
            moved = self.carry(self.client, self.server)
            moved = self.carry(self.server, self.client) or moved
            if not moved:
                return
        raise AssertionError("the handshake goes on for ever")


@dataclass
class Lab:
    authority: Authority
    other_authority: Authority
    server: Identity
    client: Identity

    def settings(self, role: str, identity: Identity | None = None, **changes: Any) -> TlsSettings:
        identity = identity or (self.client if role == "client" else self.server)
        values: dict[str, Any] = {
            "role": role,
            "ca_pem": self.authority.pem,
            "certificate_pem": identity.certificate_pem,
            "key_pem": identity.key_pem,
            "peer_usage": "server" if role == "client" else "client",
        }
        return TlsSettings(**{**values, **changes})

    def pair(
        self, client: TlsSettings | None = None, server: TlsSettings | None = None, step: int = 65536
    ) -> Pair:
        return Pair(
            make_engine_factory(client or self.settings("client"))(),
            make_engine_factory(server or self.settings("server"))(),
            step,
        )


def make_lab() -> Lab:
    authority = Authority()
    return Lab(
        authority,
        Authority("Other CA"),
        authority.issue("hub", "server"),
        authority.issue("site-b", "client"),
    )


def self_signed(name: str) -> Identity:
    """As `openssl req -x509` makes it for OpenVPN's peer-fingerprint: its own issuer, no usage."""
    key = generate_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID.not_before)
        .not_valid_after(VALID.not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, certificate_pem(certificate), key_pem(key))
