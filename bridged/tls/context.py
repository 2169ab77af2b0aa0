"""One TLS context for each tunnel; each handshake of the tunnel gets an engine from it.

Source: docs/protocol/control.md#4 (one TLS session per key state).
No sockets; no file but our own DH group. OpenSSL reads the clock to check validity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from bridged.errors import ConfigurationError
from bridged.protocol.session.tls_session import TlsEngine, TlsEngineFactory
from bridged.tls.engine import PeerJudgement, PyOpenSslEngine
from bridged.tls.identity import load_certificates, load_revocation_lists, parse_fingerprint, wipe
from bridged.tls.verification import PeerRules, PeerUsage

TlsVersion = Literal["1.2", "1.3"]

CHAIN_DEPTH_MAX: Final = 8
_VERSIONS: Final[dict[str, int]] = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_VERIFY: Final[dict[str, int]] = {
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
    "optional": SSL.VERIFY_PEER,
    "none": SSL.VERIFY_NONE,
}
# CRL_CHECK_ALL: intermediate CAs may be revoked, too.
CRL_FLAGS: Final = crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
# Old ends with an RSA certificate and only `dh` have nothing but DHE. Its AES-GCM suites are as strong.
_CIPHERS_1_2: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK:!aDSS"
_DH_GROUP: Final = Path(__file__).with_name("ffdhe3072.pem")
_CIPHERS_1_3: Final = b"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"


@dataclass(slots=True)
class TlsSettings:
    """Our certificate and key as PEM, and which peers are trusted.

    `certificate_pem` may hold intermediate certificates after our own; None: a client shows none.
    `peer_fingerprints` are SHA-256 in hex. With `ca_pem` a peer must satisfy both, without it the fingerprint
    alone. `peer_usage`: the extended key usage that the peer must have (see `verification.peer_usage`).
    `peer_certificate`: a server may let clients in that show none; their passwords are checked elsewhere.
    `crl_pem` needs `ca_pem`; `takes_expired_lists`: it counts after its end, too. If `key_pem` is a
    bytearray, `wipe` overwrites it once the factory is made.
    """

    role: Literal["client", "server"]
    certificate_pem: bytes | None
    key_pem: bytes | bytearray = field(repr=False)
    ca_pem: bytes | None = None
    crl_pem: bytes | None = None
    peer_fingerprints: tuple[str, ...] = ()
    peer_usage: PeerUsage = "any"
    peer_name: str | None = None
    peer_name_prefix: str | None = None
    peer_subject: str | None = None
    takes_expired_lists: bool = False
    peer_certificate: Literal["required", "optional", "none"] = "required"
    version_min: TlsVersion = "1.2"
    version_max: TlsVersion = "1.3"

    def wipe(self) -> None:
        """Overwrite the private key's PEM text if it is a bytearray."""
        if isinstance(self.key_pem, bytearray):
            wipe(self.key_pem)


def make_engine_factory(settings: TlsSettings) -> TlsEngineFactory:
    """Build the context. Each call of the result makes a new session with it.

    Raises:
        ConfigurationError: a certificate, key, CA, list or fingerprint cannot be used; names its key.
    """
    rules = peer_rules(settings)
    context = SSL.Context(SSL.TLS_METHOD)
    _limit_protocol(context, settings)
    _load_identity(context, settings)
    load_authority(context.get_cert_store(), settings, CRL_FLAGS)
    context.set_verify(_VERIFY[settings.peer_certificate], _verify)
    context.set_verify_depth(CHAIN_DEPTH_MAX)
    is_client = settings.role == "client"

    def make_engine() -> TlsEngine:
        return PyOpenSslEngine(context, rules, is_client=is_client)

    return make_engine


def peer_rules(settings: TlsSettings) -> PeerRules:
    """The rules for a peer's certificate.

    Raises:
        ConfigurationError: a fingerprint is malformed, or nothing identifies the peer.
    """
    rules = PeerRules(
        fingerprints=tuple(parse_fingerprint(text) for text in settings.peer_fingerprints),
        has_authority=settings.ca_pem is not None,
        usage=settings.peer_usage,
        name=settings.peer_name,
        name_prefix=settings.peer_name_prefix,
        subject=settings.peer_subject,
        takes_expired_lists=settings.takes_expired_lists,
        needs_certificate=settings.peer_certificate == "required",
    )
    if not rules.has_authority and not rules.fingerprints and settings.peer_certificate != "none":
        raise ConfigurationError(
            "nothing identifies the peer: set `ca`, `peer_fingerprints` or `embedded: true`", key="tls.ca"
        )
    return rules


def _verify(connection: Any, certificate: Any, number: int, depth: int, accepted: int) -> bool:
    """Answer OpenSSL, which asks about each certificate of the chain, the peer's own last."""
    judgement: PeerJudgement = connection.get_app_data()
    return judgement.judge(certificate, number, depth, bool(accepted))


def _limit_protocol(context: Any, settings: TlsSettings) -> None:
    if settings.version_min > settings.version_max:
        raise ConfigurationError(
            f"version_min {settings.version_min} is above version_max {settings.version_max}",
            key="tls.version_min",
        )
    context.set_min_proto_version(_VERSIONS[settings.version_min])
    context.set_max_proto_version(_VERSIONS[settings.version_max])
    # Each key does a full handshake: no resumption, and no renegotiation inside TLS.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_options(SSL.OP_NO_RENEGOTIATION)  # type: ignore[attr-defined, unused-ignore]
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS_1_2)
    context.set_tls13_ciphersuites(_CIPHERS_1_3)
    if settings.role == "server" and settings.version_min == "1.2":
        context.load_tmp_dh(str(_DH_GROUP))


def _load_identity(context: Any, settings: TlsSettings) -> None:
    if settings.certificate_pem is None:
        return
    own, *chain = load_certificates(settings.certificate_pem, "tls.certificate")
    try:
        key = load_pem_private_key(settings.key_pem, password=None)
    except TypeError as error:
        raise ConfigurationError(
            "the private key is encrypted; write it without a password: `openssl pkey -in OLD -out NEW`",
            key="tls.key",
        ) from error
    except Exception as error:  # the library raises several unrelated types for unreadable keys
        raise ConfigurationError(
            "not a PEM private key; it begins with `-----BEGIN PRIVATE KEY-----` (or EC, RSA)", key="tls.key"
        ) from error
    try:
        context.use_certificate(own)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)
        context.check_privatekey()
    except (SSL.Error, crypto.Error, TypeError) as error:
        raise ConfigurationError(
            "the private key does not belong to the certificate, or TLS refuses its kind or strength; use EC "
            "P-256, or RSA with at least 2048 bits",
            key="tls.key",
        ) from error


def load_authority(store: Any, settings: TlsSettings, crl_flags: int) -> None:
    """Put the settings' CAs and revocation lists into an OpenSSL store.

    Sets `crl_flags` if there is a list.

    Raises:
        ConfigurationError: a CA or a list cannot be used.
    """
    if settings.ca_pem is None:
        if settings.crl_pem is not None:
            raise ConfigurationError("a revocation list needs the CA that signed it: set `ca`", key="tls.crl")
        return
    for certificate in load_certificates(settings.ca_pem, "tls.ca"):
        store.add_cert(crypto.X509.from_cryptography(certificate))
    if settings.crl_pem is None:
        return
    for crl in load_revocation_lists(settings.crl_pem):
        store.add_crl(crl)
    store.set_flags(crl_flags)
