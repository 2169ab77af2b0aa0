"""A connected peer is judged again by the rules of its handshake; lists count at every level of a chain."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from bridged.errors import TlsError
from bridged.pki.certificates import (
    Validity,
    _builder,
    _key_usage,
    _name,
    build_certificate,
    build_revocation_list,
    certificate_pem,
    generate_key,
    key_pem,
)
from bridged.protocol.session.tls_session import TlsSummary
from bridged.tls import TlsSettings, make_engine_factory
from bridged.tls.peer_check import PeerCheck, valid_until
from tests.unit.tls.tls_lab import DAY, EXPIRED, NOW, VALID, Authority, self_signed


class Chain:
    """root → middle → client; the server's certificate is root's."""

    def __init__(self, middle: Validity = VALID) -> None:
        self.keys = {name: generate_key() for name in ("root", "middle", "server", "client")}
        self.root = self._authority("root", None, VALID)
        self.middle = self._authority("middle", self.root, middle)
        self.server = self._leaf("server", "server", self.root, "root")
        self.client = self._leaf("client", "client", self.middle, "middle")

    def _authority(self, name: str, by: x509.Certificate | None, validity: Validity) -> x509.Certificate:
        public = self.keys[name].public_key()
        return (
            _builder(_name(name), _name(name) if by is None else by.subject, public, validity)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.keys["root" if by is not None else name], hashes.SHA256())
        )

    def _leaf(self, name: str, usage: str, by: x509.Certificate, signer: str) -> x509.Certificate:
        return build_certificate(name, self.keys[name].public_key(), usage, by, self.keys[signer], VALID)

    def crl(self, by: str, *revoked: x509.Certificate, validity: Validity = VALID) -> bytes:
        rows = [(one.serial_number, NOW) for one in revoked]
        authority = self.root if by == "root" else self.middle
        return build_revocation_list(rows, 1, authority, self.keys[by], validity).public_bytes(Encoding.PEM)

    def settings(self, crl: bytes | None = None, **changes: object) -> TlsSettings:
        values = {
            "role": "server",
            "certificate_pem": certificate_pem(self.server),
            "key_pem": key_pem(self.keys["server"]),
            "ca_pem": certificate_pem(self.root),
            "crl_pem": crl,
            "peer_usage": "client",
        }
        return TlsSettings(**(values | changes))  # type: ignore[arg-type]

    def client_settings(self) -> TlsSettings:
        return TlsSettings(
            "client",
            certificate_pem(self.client) + certificate_pem(self.middle),
            key_pem(self.keys["client"]),
            certificate_pem(self.root),
            peer_usage="server",
        )


@dataclass
class Result:
    """What a server made of a client: its summary, or the code of its refusal."""

    summary: TlsSummary | None
    code: str | None


def shake(server: TlsSettings, client: TlsSettings) -> Result:
    ours, theirs = make_engine_factory(server)(), make_engine_factory(client)()
    theirs.start()
    for _ in range(6):
        try:
            if octets := theirs.take_ciphertext():
                ours.receive(octets)
        except TlsError as error:
            return Result(None, error.code)
        if octets := ours.take_ciphertext():
            theirs.receive(octets)
    return Result(ours.summary(), None)


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain()


def test_a_revoked_intermediate_ca_is_refused(chain: Chain) -> None:
    lists = chain.crl("root", chain.middle) + chain.crl("middle")
    assert shake(chain.settings(lists), chain.client_settings()).code == "certificate_revoked"


def test_a_chain_needs_the_list_of_the_leaf_s_issuer_and_no_other_one(chain: Chain) -> None:
    only_the_issuer = shake(chain.settings(chain.crl("middle")), chain.client_settings())
    assert only_the_issuer.summary is not None and only_the_issuer.summary.peer_name == "client"
    only_the_root = shake(chain.settings(chain.crl("root")), chain.client_settings())
    assert only_the_root.code == "certificate_rejected"


def test_the_summary_keeps_the_whole_verified_chain_and_when_it_first_ends(chain: Chain) -> None:
    summary = shake(chain.settings(), chain.client_settings()).summary
    assert summary is not None
    assert [x509.load_der_x509_certificate(one) for one in summary.peer_chain] == [
        chain.client,
        chain.middle,
        chain.root,
    ]
    short = Chain(Validity(NOW - DAY, NOW + DAY))
    summary = shake(short.settings(), short.client_settings()).summary
    assert summary is not None
    assert valid_until(summary) == short.middle.not_valid_after_utc.timestamp() < summary.peer_not_after


def test_a_pinned_certificate_stands_for_itself_whatever_came_with_it(chain: Chain) -> None:
    digest = chain.client.fingerprint(hashes.SHA256()).hex()
    pinned = chain.settings(ca_pem=None, peer_usage="any", peer_fingerprints=(digest,))
    summary = shake(pinned, chain.client_settings()).summary
    assert summary is not None
    assert [x509.load_der_x509_certificate(one) for one in summary.peer_chain] == [chain.client]
    assert PeerCheck(pinned).judge(summary) is None
    assert valid_until(summary) == summary.peer_not_after


CHANGES = {
    "nothing": (lambda c: c.settings(), None),
    "lists that revoke nobody": (lambda c: c.settings(c.crl("root") + c.crl("middle")), None),
    "the list of the issuer only": (lambda c: c.settings(c.crl("middle")), None),
    "the list of the root only": (lambda c: c.settings(c.crl("root")), "certificate_rejected"),
    "the peer is revoked": (lambda c: c.settings(c.crl("middle", c.client)), "certificate_revoked"),
    "its issuer is revoked": (
        lambda c: c.settings(c.crl("root", c.middle) + c.crl("middle")),
        "certificate_revoked",
    ),
    "a list that has ended": (lambda c: c.settings(c.crl("middle", validity=EXPIRED)), "crl_expired"),
    "another CA": (lambda c: c.settings(ca_pem=Authority("Other").pem), "certificate_rejected"),
    "another name": (lambda c: c.settings(peer_name="elsewhere"), "name_mismatch"),
    "another prefix": (lambda c: c.settings(peer_name_prefix="x"), "name_mismatch"),
    "another usage": (lambda c: c.settings(peer_usage="server"), "certificate_rejected"),
    "another fingerprint": (lambda c: c.settings(peer_fingerprints=("00" * 32,)), "certificate_rejected"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_connected_peer_is_judged_as_a_new_one_would_be(chain: Chain, change: str) -> None:
    make, expected = CHANGES[change]
    settings = make(chain)
    before = shake(chain.settings(), chain.client_settings()).summary
    assert before is not None
    refusal = PeerCheck(settings).judge(before)
    assert (refusal.code if refusal else None) == expected
    assert shake(settings, chain.client_settings()).code == expected


def test_a_pinned_peer_without_a_ca_is_judged_by_pin_and_validity(chain: Chain) -> None:
    for identity, pins, expected in (
        (self_signed("a"), None, None),
        (self_signed("a"), ("00" * 32,), "certificate_rejected"),
        (Authority().issue("a", "client", EXPIRED), None, "certificate_expired"),
    ):
        pinned = chain.settings(
            ca_pem=None, peer_usage="any", peer_fingerprints=pins or (identity.fingerprint,)
        )
        summary = TlsSummary(
            "TLSv1.3",
            "",
            None,
            "a",
            identity.fingerprint,
            0.0,  # type: ignore[arg-type]
            (identity.certificate.public_bytes(Encoding.DER),),
        )
        refusal = PeerCheck(pinned).judge(summary)
        assert (refusal.code if refusal else None) == expected


@pytest.mark.parametrize("kept", [(), (b"junk",)])
def test_what_cannot_be_judged_is_not_let_in(chain: Chain, kept: tuple[bytes, ...]) -> None:
    summary = TlsSummary("TLSv1.3", "", None, "a", "", 0.0, kept)  # type: ignore[arg-type]
    refusal = PeerCheck(chain.settings()).judge(summary)
    assert refusal is not None and refusal.code == "certificate_rejected"
