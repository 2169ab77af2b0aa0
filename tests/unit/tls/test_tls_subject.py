"""Whole subjects: printed and compared as OpenVPN does, which lets OpenSSL print them."""

from __future__ import annotations

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from bridged.errors import TlsError
from bridged.pki.certificates import certificate_pem, generate_key, key_pem
from bridged.tls.context import _CIPHERS_1_2
from bridged.tls.subject import _SHORT_NAMES, printed_subject
from tests.unit.tls.tls_lab import VALID, Identity, make_lab

NAME_OPTIONS = "sep_comma_plus_space,sname,utf8,esc_ctrl"


def attribute(oid, value, kind=_ASN1Type.UTF8String):
    return x509.NameAttribute(x509.ObjectIdentifier(oid), value, kind, _validate=False)


def certificate_of(authority, rdns, key=None):
    key = key or generate_key()
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.RelativeDistinguishedName(rdn) for rdn in rdns]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID.not_before)
        .not_valid_after(VALID.not_after)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def printed_by_openssl(der):
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", NAME_OPTIONS]
    out = subprocess.run(command, input=der, capture_output=True, check=True, timeout=30).stdout
    return out.decode().removeprefix("subject=").removesuffix("\n")


CASES = {
    "dutch": [[("2.5.4.6", "NL")], [("2.5.4.8", "Zuid-Holland")], [("2.5.4.10", "Example BV")]],
    "umlauts": [[("2.5.4.10", "Müller & Söhne, GmbH + Co")], [("2.5.4.3", "köln")]],
    "escapes": [[("2.5.4.10", 'back\\slash "quoted" <a>;#=')], [("2.5.4.11", "tab\there")]],
    "several at once": [[("2.5.4.3", "hub"), ("2.5.4.11", "ops")], [("2.5.4.5", "17")]],
    "unknown": [[("1.2.3.4.5", "text")], [("2.999.1", "more")]],
    "long": [[("2.5.4.13", "x" * 300)]],
}


@pytest.fixture(scope="module")
def lab():
    return make_lab()


@pytest.mark.parametrize("name", CASES)
def test_a_subject_is_printed_as_openssl_prints_it(lab, name):
    rdns = [[attribute(*pair) for pair in rdn] for rdn in CASES[name]]
    certificate = certificate_of(lab.authority, rdns)
    expected = printed_by_openssl(certificate.public_bytes(Encoding.DER))
    assert printed_subject(certificate.tbs_certificate_bytes) == expected


def test_every_attribute_has_openssl_s_short_name(lab):
    certificate = certificate_of(lab.authority, [[attribute(oid, "XX")] for oid in _SHORT_NAMES])
    expected = printed_by_openssl(certificate.public_bytes(Encoding.DER))
    assert printed_subject(certificate.tbs_certificate_bytes) == expected


@pytest.mark.parametrize(
    ("tag", "content"),
    [(0x14, b"B\xfcro"), (0x1E, "Bü".encode("utf-16-be")), (0x1C, "ü".encode("utf-32-be"))],
)
def test_strings_of_every_kind_are_printed_as_openssl_prints_them(lab, tag, content):
    certificate = certificate_of(lab.authority, [[attribute("2.5.4.10", "Buro")]])
    der = certificate.public_bytes(Encoding.DER).replace(b"\x0c\x04Buro", bytes([tag, 4]) + content)
    tbs = certificate.tbs_certificate_bytes.replace(b"\x0c\x04Buro", bytes([tag, 4]) + content)
    assert printed_subject(tbs) == printed_by_openssl(der)


@given(st.binary(max_size=200))
def test_any_octets_are_a_subject_or_refused(octets):
    try:
        assert isinstance(printed_subject(octets), str)
    except ValueError:
        pass


@pytest.mark.parametrize("subject", ["C=DE, O=Müller GmbH, CN=vpn", "CN=vpn", "O=Müller GmbH, C=DE, CN=vpn"])
def test_only_the_whole_subject_of_the_peer_is_accepted(lab, subject):
    key = generate_key()
    rdns = [
        [attribute("2.5.4.6", "DE")],
        [attribute("2.5.4.10", "Müller GmbH")],
        [attribute("2.5.4.3", "vpn")],
    ]
    certificate = certificate_of(lab.authority, rdns, key)
    server = Identity(certificate, certificate_pem(certificate), key_pem(key))
    pair = lab.pair(lab.settings("client", peer_subject=subject), lab.settings("server", server))
    if subject.startswith("C=DE"):
        pair.run()
        return
    with pytest.raises(TlsError) as caught:
        pair.run()
    assert caught.value.code == "name_mismatch" and "O=Müller GmbH, CN=vpn" in caught.value.message


def test_tls_1_2_offers_dhe_with_aes_gcm_too_and_nothing_weaker():
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(_CIPHERS_1_2)
    names = SSL.Connection(context, None).get_cipher_list()
    assert "DHE-RSA-AES256-GCM-SHA384" in names and "DHE-RSA-AES128-GCM-SHA256" in names
    assert all(name.startswith(("TLS_", "ECDHE-", "DHE-RSA-")) for name in names)
    assert not any("SHA1" in name or "CBC" in name or name.endswith("-SHA") for name in names)
