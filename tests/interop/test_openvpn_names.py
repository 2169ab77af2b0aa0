"""Names and key usages of certificates: OpenVPN judges, and we say the same."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type

from bridged.errors import TlsError
from bridged.profiles import parse_profile
from bridged.tls import TlsSettings, make_engine_factory
from bridged.tls.subject import printed_subject
from bridged.tls.verification import PeerRules, peer_usage
from tests.lab.openvpn import INSTALLED
from tests.lab.openvpn_judge import verdict
from tests.lab.pki import Authority, Identity

OK, ERROR = "VERIFY X509NAME OK", "VERIFY X509NAME ERROR"
COUNTRY, STATE, ORGANIZATION, UNIT, NAME = "2.5.4.6", "2.5.4.8", "2.5.4.10", "2.5.4.11", "2.5.4.3"
MAIL, COMPONENT, UNKNOWN = "1.2.840.113549.1.9.1", "0.9.2342.19200300.100.1.25", "1.2.3.4.5"
UTF8, PRINTABLE, BMP = _ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.BMPString
SUBJECTS = {
    "umlauts": [
        [(COUNTRY, "DE", PRINTABLE)],
        [(ORGANIZATION, "Müller & Söhne GmbH", UTF8)],
        [(NAME, "köln", UTF8)],
    ],
    "reversed": [
        [(NAME, "vpn", UTF8)],
        [(ORGANIZATION, "Example, Inc.", UTF8)],
        [(COUNTRY, "US", PRINTABLE)],
    ],
    "escapes": [
        [(ORGANIZATION, 'a\\b "c" <d>; #e = f + g', UTF8)],
        [(UNIT, "tab\there", UTF8)],
        [(NAME, "v", UTF8)],
    ],
    "several": [
        [(NAME, "hub", UTF8), (UNIT, "ops", UTF8)],
        [(MAIL, "a@example.org", UTF8)],
        [(COMPONENT, "org", UTF8)],
    ],
    "unknown": [[(UNKNOWN, "text", UTF8)], [(NAME, " blanks around ", UTF8)]],
    "old strings": [[(STATE, "Köln", BMP)], [(NAME, "vpn", PRINTABLE)]],
    "leading hyphen": [[(UNKNOWN, "x", UTF8)], [(NAME, "-verb", UTF8)]],
    "wide": [[(ORGANIZATION, "日本 \U0001f310", UTF8)], [(NAME, "vpn", UTF8)]],
}


def subject(rdns: list[list[tuple[str, str, _ASN1Type]]]) -> x509.Name:
    return x509.Name(
        [
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(x509.ObjectIdentifier(oid), text, kind, _validate=False)
                    for oid, text, kind in rdn
                ]
            )
            for rdn in rdns
        ]
    )


def leaf(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate.encode())


@pytest.mark.parametrize("release", [INSTALLED, "2.5"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_openvpn_prints_a_subject_as_we_do_and_takes_that_text_only(
    tmp_path, authority, name, release
) -> None:
    server = authority.issue("x", "server", subject=subject(SUBJECTS[name]))
    printed = printed_subject(leaf(server).tbs_certificate_bytes)
    judge = authority.issue("judge", "client")
    for asked, expected in ((printed, OK), (f"{printed} ", ERROR)):
        options = ("--verify-x509-name", asked, "subject")
        log = verdict(tmp_path, (judge, options), (server, ()), authority.certificate, (OK, ERROR), release)
        assert expected in log, log
        rules = PeerRules(subject=asked)
        assert (rules.judge_leaf(leaf(server)) is None) == (expected == OK)


DONE = ("VERIFY OK: depth=0", "certificate verify failed", "VERIFY ERROR")
RULES = ("", "remote-cert-tls server", "ns-cert-type server", "remote-cert-eku 1.3.6.1.5.5.7.3.1")
CERTIFICATES = [
    (usage, netscape) for usage in ("server", "none", "client") for netscape in ("none", "server", "client")
]


def accepts(authority: Authority, identity: Identity, own: Identity, rule: str) -> bool:
    """Whether our client, with what the profile's line becomes, accepts the server."""
    text = f"client\ndev tap\nremote h\nca a\ncert c\nkey k\n{rule}\n"
    usage = peer_usage("client", parse_profile(text, "p.ovpn").peer_role or "auto", True)
    pem = authority.certificate.encode()
    engines = [
        make_engine_factory(
            TlsSettings(role, one.certificate.encode(), one.key.encode(), pem, peer_usage=asked)
        )()
        for role, one, asked in (("client", own, usage), ("server", identity, "any"))
    ]
    try:
        for engine in engines:
            engine.start()
        for _ in range(10):
            for source, sink in (engines, engines[::-1]):
                sink.receive(source.take_ciphertext())
    except TlsError:
        return False
    return engines[0].is_established


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("usage, netscape", CERTIFICATES)
def test_what_openvpn_accepts_of_old_certificates_we_accept(
    tmp_path, authority, usage, netscape, rule
) -> None:
    server = authority.issue("server", usage, netscape=netscape)
    judge = authority.issue("judge", "client")
    options = ("--" + rule).split() if rule else ()
    log = verdict(tmp_path, (judge, options), (server, ()), authority.certificate, DONE)
    assert accepts(authority, server, judge, rule) == (DONE[0] in log), log
