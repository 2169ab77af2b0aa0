"""Judges a connected peer's certificate by the present rules: would it still be let in?

Source: docs/protocol/data.md#7. No sockets, no files. OpenSSL reads the clock to check validity.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from OpenSSL import crypto

from bridged.errors import PeerRefusedError
from bridged.protocol.session.tls_session import TlsSummary
from bridged.tls.context import CRL_FLAGS, TlsSettings, load_authority, peer_rules
from bridged.tls.identity import load_revocation_lists
from bridged.units import UnixSeconds

_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_REVOKED: Final = 23
_REJECTED: Final = "certificate_rejected"


class PeerCheck:
    """The present rules of one end of a tunnel, for peers that earlier rules let in.

    Raises:
        ConfigurationError: a CA, list or fingerprint cannot be used.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._rules = peer_rules(settings)
        self._whole = _store(settings, CRL_FLAGS)
        # For chains with a CA that has no list.
        self._plain = _store(settings, 0)
        self._single = _store(settings, crypto.X509StoreFlags.CRL_CHECK)
        self._lists = load_revocation_lists(settings.crl_pem) if settings.crl_pem is not None else []

    def judge(self, summary: TlsSummary) -> PeerRefusedError | None:
        """Why the peer would be refused now; None if it would be let in. Takes about 0.2 ms."""
        if not summary.peer_fingerprint and not self._rules.needs_certificate:
            return None
        try:
            chain = [x509.load_der_x509_certificate(octets) for octets in summary.peer_chain]
            if not chain:
                return PeerRefusedError(_REJECTED, "the peer's certificate was not kept")
            leaf = chain[0]
            refusal = self._judge_chain(chain) if self._rules.has_authority else self._judge_validity(leaf)
            return refusal or self._rules.judge_leaf(leaf)
        except (ValueError, TypeError, crypto.Error) as error:
            # It was parsed in the handshake. What cannot be judged is not let in.
            return PeerRefusedError(_REJECTED, f"the peer's certificate cannot be judged ({error})")

    def _judge_chain(self, chain: Sequence[x509.Certificate]) -> PeerRefusedError | None:
        leaf, *issuers = [crypto.X509.from_cryptography(one) for one in chain]
        try:
            crypto.X509StoreContext(self._whole, leaf, issuers).verify_certificate()
        except crypto.X509StoreContextError as error:
            return self._refusal(error, 0) or self._judge_one_by_one(leaf, issuers)
        return None

    def _judge_one_by_one(self, leaf: crypto.X509, issuers: Sequence[crypto.X509]) -> PeerRefusedError | None:
        """OpenSSL stops at its first error, but some errors do not refuse (docs/decisions/0037)."""
        try:
            verified = crypto.X509StoreContext(self._plain, leaf, issuers).get_verified_chain()
        except crypto.X509StoreContextError as error:
            return self._refusal(error, 0) or PeerRefusedError(_REJECTED, f"OpenSSL refuses it ({error})")
        for depth, certificate in enumerate(verified):
            try:
                crypto.X509StoreContext(self._single, certificate, verified[1:]).verify_certificate()
            except crypto.X509StoreContextError as error:
                refusal = self._refusal(error, depth)
                if refusal is not None:
                    return refusal
        if not self._rules.takes_expired_lists:
            return None
        # OpenSSL says nothing of revocations in a list that has ended.
        return self._judge_revocation([one.to_cryptography() for one in verified])

    def _judge_revocation(self, chain: Sequence[x509.Certificate]) -> PeerRefusedError | None:
        for depth, certificate in enumerate(chain):
            for crl in self._lists:
                if crl.issuer != certificate.issuer:
                    continue
                if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                    return self._rules.judge_chain_error(certificate, _REVOKED, depth)
        return None

    def _judge_validity(self, leaf: x509.Certificate) -> PeerRefusedError | None:
        now = datetime.now(UTC)
        number = _EXPIRED if now > leaf.not_valid_after_utc else _NOT_YET_VALID
        if leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            return None
        return self._rules.judge_chain_error(leaf, number, 0)

    def _refusal(self, error: crypto.X509StoreContextError, above: int) -> PeerRefusedError | None:
        """The refusal for an error; `above`: levels between the judged and the peer's own certificate."""
        number, depth = error.errors[0], error.errors[1]
        certificate: Any = error.certificate
        return self._rules.judge_chain_error(certificate.to_cryptography(), int(number), above + int(depth))


def _store(settings: TlsSettings, crl_flags: int) -> crypto.X509Store:
    store = crypto.X509Store()
    load_authority(store, settings, crl_flags)
    return store


def valid_until(summary: TlsSummary) -> UnixSeconds:
    """When the first certificate of the peer's chain expires."""
    ends = [
        UnixSeconds(x509.load_der_x509_certificate(octets).not_valid_after_utc.timestamp())
        for octets in summary.peer_chain
    ]
    return min([summary.peer_not_after, *ends])
