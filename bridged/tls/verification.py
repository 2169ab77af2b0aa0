"""Which peers are trusted: our rules for the peer's certificate, on top of OpenSSL's check of the chain.

Source: docs/protocol/data.md#7 (remote-cert-tls, verify-x509-name, peer-fingerprint).
Pure apart from the certificate library: no sockets, no files, no clock (OpenSSL checks validity).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridged.errors import ConfigurationError, PeerRefusedError
from bridged.tls.identity import load_certificates
from bridged.tls.subject import printed_subject

PeerUsage = Literal["client", "server", "client_or_none", "server_or_none", "any"]
NAME_LENGTH_MAX: Final = 64
SUBJECT_SHOWN_MAX: Final = 256
NAME_SHOWN_MAX: Final = 160

_USAGES: Final = {
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth"),
    "server": (ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"),
}
_OR_NONE: Final = "_or_none"
_ANY_USAGE: Final = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

# Numbers of X509_V_ERR_*: fixed by OpenSSL's public interface.
_NO_LIST: Final = 3
_LIST_EXPIRED: Final = 12
_PURPOSE: Final = 26
_ISSUER_UNKNOWN: Final = frozenset({2, 18, 19, 20, 21, 27, 33})
_CODES: Final = {
    9: "certificate_expired",
    10: "certificate_expired",
    12: "crl_expired",
    23: "certificate_revoked",
}
_TEXTS: Final = {
    3: "no revocation list of its issuer in `tls.crl`; add the list of that CA",
    7: "its signature is wrong: the issuer in `tls.ca` has the same name, but another key",
    8: "the revocation list in `tls.crl` is not signed by the CA in `tls.ca`",
    9: "it is not valid yet; check the clocks of both ends",
    10: "it has expired; issue a new one for the peer (and check the clocks of both ends)",
    11: "the revocation list in `tls.crl` is not valid yet; check the clock",
    12: "the revocation list in `tls.crl` has expired; fetch or sign a new one",
    22: "its chain is too long",
    23: "it has been revoked",
    24: "its issuer may not issue certificates (no CA certificate)",
    26: "its extended key usage does not allow this role",
    66: "its key is too weak; issue a new one (EC P-256, or RSA with 2048 bits or more)",
    67: "the key of its CA is too weak; a CA needs EC P-256, or RSA with 2048 bits or more",
    68: "it is signed with a digest that is too weak; issue a new one with SHA-256",
    79: "its issuer may not issue certificates (no CA certificate)",
}
_UNKNOWN_ISSUER_TEXT: Final = (
    "it is not issued by a CA in `tls.ca`; both ends need the CA of the other's certificate"
)


@dataclass(frozen=True, slots=True)
class PeerRules:
    """What a peer's certificate needs besides a valid chain.

    `fingerprints`: SHA-256 digests, one of which must match (empty: no pinning). `has_authority`: a chain to
    a CA is required. Without it trust depends on `fingerprints`, and only validity, usage and names are
    checked further. `usage`: the extended key usage that must be present (`…_or_none`: unless there is none).
    Without `needs_certificate`, a peer may show none at all. `takes_expired_lists`: revocation lists count
    after their end, too.
    """

    fingerprints: tuple[bytes, ...] = ()
    has_authority: bool = True
    usage: PeerUsage = "any"
    name: str | None = None
    name_prefix: str | None = None
    subject: str | None = None
    needs_certificate: bool = True
    takes_expired_lists: bool = False

    def judge_chain_error(
        self, certificate: x509.Certificate, number: int, depth: int
    ) -> PeerRefusedError | None:
        """Judge a certificate at `depth` (0: the peer's own) that OpenSSL refuses; None accepts it."""
        if number == _NO_LIST and depth > 0:
            # A CA above the issuer need not have a list (docs/decisions/0037).
            return None
        if number == _LIST_EXPIRED and self.takes_expired_lists:
            return None
        if not self.has_authority and (depth > 0 or number in _ISSUER_UNKNOWN):
            return None
        if number == _PURPOSE and depth == 0 and self.usage == "any":
            return None
        reason = _UNKNOWN_ISSUER_TEXT if number in _ISSUER_UNKNOWN else _TEXTS.get(number)
        if reason is None:
            reason = f"OpenSSL refuses it (verification error {number})"
        return _refusal(certificate, reason, _CODES.get(number, "certificate_rejected"), depth)

    def judge_leaf(self, certificate: x509.Certificate) -> PeerRefusedError | None:
        """Judge the peer's own certificate, whose chain is valid; None accepts it."""
        if self.fingerprints and not self._is_pinned(certificate):
            return _refusal(
                certificate,
                f"its fingerprint {_digest(certificate).hex()} is not in `tls.peer_fingerprints`",
            )
        if not self.fingerprints and not self.has_authority:
            return _refusal(certificate, "neither `tls.ca` nor `tls.peer_fingerprints` is set")
        try:
            return self._judge_usage(certificate) or self._judge_name(certificate)
        except (ValueError, x509.DuplicateExtension) as error:
            return _refusal(certificate, f"it cannot be parsed ({error})")

    def _is_pinned(self, certificate: x509.Certificate) -> bool:
        digest = _digest(certificate)
        # Compare every pin, each in constant time.
        return sum(hmac.compare_digest(digest, pin) for pin in self.fingerprints) > 0

    def _judge_usage(self, certificate: x509.Certificate) -> PeerRefusedError | None:
        if self.usage == "any":
            return None
        role = self.usage.removesuffix(_OR_NONE)
        wanted, word = _USAGES[role]
        present = _extended_usages(certificate)
        if not present and self.usage.endswith(_OR_NONE):
            return None
        if wanted not in present and not (self.usage.endswith(_OR_NONE) and _ANY_USAGE in present):
            return _refusal(
                certificate,
                f"it is no {role} certificate (extended key usage {word} is missing); issue one "
                "with it, or set `tls.peer_role: compatible` if it has no extended key usage at all",
            )
        if not _key_usage_allows_tls(certificate):
            return _refusal(certificate, "its key usage allows neither digitalSignature nor key agreement")
        return None

    def _judge_name(self, certificate: x509.Certificate) -> PeerRefusedError | None:
        name = common_name(certificate)
        if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
            return _refusal(
                certificate,
                f"its common name is missing, longer than {NAME_LENGTH_MAX} characters or unprintable; "
                "it identifies the peer",
            )
        if self.name is not None and not _same(name, self.name):
            return _refusal(certificate, f"`tls.peer_name` asks for the name {self.name!r}", "name_mismatch")
        if self.name_prefix is not None and not name.startswith(self.name_prefix):
            return _refusal(
                certificate,
                f"`tls.peer_name_prefix` asks for a name that begins with {self.name_prefix!r}",
                "name_mismatch",
            )
        return self._judge_subject(certificate)

    def _judge_subject(self, certificate: x509.Certificate) -> PeerRefusedError | None:
        if self.subject is None:
            return None
        subject = printed_subject(certificate.tbs_certificate_bytes)
        if _same(subject, self.subject):
            return None
        shown = "".join(char if char.isprintable() else "?" for char in subject[:SUBJECT_SHOWN_MAX])
        return _refusal(
            certificate,
            f"`tls.peer_subject` asks for the subject {self.subject!r}; its subject is {shown!r}",
            "name_mismatch",
        )


def peer_usage(own_role: Literal["client", "server"], asked: str, has_authority: bool) -> PeerUsage:
    """`PeerUsage` for the configuration's `peer_role`.

    `auto` requires the opposite role if a CA is trusted. A certificate that is pinned by its fingerprint
    needs no usage (OpenVPN's `peer-fingerprint` certificates have none). `compatible` requires it unless the
    certificate has no extended key usage at all.
    """
    if asked == "compatible":
        return "server_or_none" if own_role == "client" else "client_or_none"
    if asked == "auto":
        if not has_authority:
            return "any"
        return "server" if own_role == "client" else "client"
    return "client" if asked == "client" else "server" if asked == "server" else "any"


def allows_role(pem: bytes, role: Literal["client", "server"]) -> bool:
    """Whether the first certificate may be used by this role, as far as it says; True if unreadable."""
    try:
        usages = _extended_usages(load_certificates(pem, "certificate")[0])
    except (ValueError, x509.DuplicateExtension, ConfigurationError):
        return True
    return not usages or bool(usages & {_USAGES[role][0], _ANY_USAGE})


def common_name(certificate: x509.Certificate) -> str:
    """The last common name of the subject, which OpenVPN uses, too; empty if there is none.

    Raises:
        ValueError: the subject cannot be parsed.
    """
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) if names else ""


def describe(certificate: x509.Certificate) -> str:
    """Such as `CN=site-b (issued by CN=Our CA, serial 4D2)`; the serial in hex. Bounded and safe to print."""
    subject, issuer = _safe_name(certificate, issuer=False), _safe_name(certificate, issuer=True)
    return f"{subject} (issued by {issuer}, serial {certificate.serial_number:X})"


def _safe_name(certificate: x509.Certificate, *, issuer: bool) -> str:
    """The whole name, its most specific part first, as in OpenVPN's log."""
    try:
        name = certificate.issuer if issuer else certificate.subject
        parts = [f"{part.rfc4514_attribute_name}={part.value!s}" for part in reversed(list(name))]
        text = ", ".join(parts) or "an empty name"
    except ValueError:
        text = "an unreadable name"
    return "".join(char if char.isprintable() else "?" for char in text[:NAME_SHOWN_MAX])


def _refusal(
    certificate: x509.Certificate, reason: str, code: str = "certificate_rejected", depth: int = 0
) -> PeerRefusedError:
    whose = "the peer's certificate" if depth == 0 else "a CA certificate in the peer's chain"
    return PeerRefusedError(code, f"{whose} {describe(certificate)} is refused: {reason}")


def _extended_usages(certificate: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(extension.value)


def _key_usage_allows_tls(certificate: x509.Certificate) -> bool:
    # Without the extension every use is allowed (RFC 5280, section 4.2.1.3).
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.key_agreement or usage.key_encipherment


def _digest(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(errors="replace"), right.encode(errors="replace"))
