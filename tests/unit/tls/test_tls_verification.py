"""Whom the engine believes: chain, role, name, fingerprint, validity, revocation."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bridged.errors import ConfigurationError, TlsError
from bridged.pki.certificates import Validity
from bridged.tls import make_engine_factory, peer_usage
from bridged.tls.identity import parse_fingerprint
from bridged.tls.verification import describe
from tests.unit.tls.tls_lab import DAY, EXPIRED, NOW, Authority, self_signed


def outcome(pair):
    """(client's error, server's error) of a handshake carried to its end; None: no error."""
    errors = {}
    pair.client.start()
    for _ in range(6):
        for name, source, sink in (
            ("server", pair.client, pair.server),
            ("client", pair.server, pair.client),
        ):
            octets = source.take_ciphertext()
            if octets and name not in errors:
                try:
                    sink.receive(octets)
                except TlsError as error:
                    errors[name] = error
    return errors.get("client"), errors.get("server")


@pytest.fixture(params=["1.2", "1.3"])
def version(request):
    return {"version_min": request.param, "version_max": request.param}


def assert_server_refuses(lab, identity, code, text, version, **server):
    pair = lab.pair(lab.settings("client", identity, **version), lab.settings("server", **server))
    at_client, at_server = outcome(pair)
    assert at_server is not None and at_server.code == code
    assert text in at_server.message
    assert not pair.server.is_established
    # The alert reaches the client, with TLS 1.3 after its own handshake was complete.
    assert at_client is not None
    return at_client


def assert_client_refuses(lab, identity, code, text, version, **client):
    pair = lab.pair(lab.settings("client", **client, **version), lab.settings("server", identity))
    at_client, at_server = outcome(pair)
    assert at_client is not None and at_client.code == code
    assert text in at_client.message
    assert not pair.client.is_established and not pair.server.is_established
    assert at_server is not None
    return at_server


def test_certificate_of_another_ca_is_refused_by_the_server(lab, version):
    stranger = lab.other_authority.issue("site-b", "client")
    peer = assert_server_refuses(lab, stranger, "certificate_rejected", "not issued by a CA", version)
    assert peer.code == "certificate_rejected" and "CA" in peer.message


def test_certificate_of_another_ca_is_refused_by_the_client(lab, version):
    stranger = lab.other_authority.issue("hub", "server")
    peer = assert_client_refuses(lab, stranger, "certificate_rejected", "CN=hub", version)
    assert peer.code == "certificate_rejected"


def test_ca_of_the_same_name_with_another_key_is_refused(lab, version):
    twin = Authority("Test CA").issue("site-b", "client")
    assert_server_refuses(lab, twin, "certificate_rejected", "CN=site-b", version)


def test_self_signed_certificate_is_refused(lab, version):
    assert_server_refuses(lab, self_signed("site-b"), "certificate_rejected", "not issued by a CA", version)


def test_expired_certificate_is_refused_and_both_ends_know(lab, version):
    old = lab.authority.issue("site-b", "client", EXPIRED)
    peer = assert_server_refuses(lab, old, "certificate_expired", "has expired", version)
    assert peer.code == "certificate_expired"


def test_certificate_of_tomorrow_is_refused_and_clocks_are_mentioned(lab, version):
    early = lab.authority.issue("hub", "server", Validity(NOW + DAY, NOW + 2 * DAY))
    assert_client_refuses(lab, early, "certificate_expired", "check the clocks", version)


def test_client_certificate_cannot_play_the_server(lab, version):
    assert_client_refuses(lab, lab.client, "certificate_rejected", "extended key usage", version)


def test_server_certificate_cannot_play_the_client(lab, version):
    assert_server_refuses(lab, lab.server, "certificate_rejected", "extended key usage", version)


def test_certificate_without_usage_is_refused_unless_any_is_asked(lab, version):
    plain = lab.authority.issue("hub", None)
    assert_client_refuses(lab, plain, "certificate_rejected", "serverAuth is missing", version)
    pair = lab.pair(lab.settings("client", peer_usage="any", **version), lab.settings("server", plain))
    assert outcome(pair) == (None, None)


@pytest.mark.parametrize("usage", ["server_or_none", "client_or_none"])
def test_usage_or_none_takes_a_certificate_without_usage_but_none_of_the_other_role(lab, version, usage):
    plain, checker = lab.authority.issue("other", None), usage == "server_or_none"
    ours, theirs = ("client", "server") if checker else ("server", "client")
    ends = {ours: lab.settings(ours, peer_usage=usage, **version), theirs: lab.settings(theirs, plain)}
    assert outcome(lab.pair(ends["client"], ends["server"])) == (None, None)
    ends[theirs] = lab.settings(theirs, lab.client if checker else lab.server)
    found = outcome(lab.pair(ends["client"], ends["server"]))
    refused = found[0 if checker else 1]
    assert refused is not None and refused.code == "certificate_rejected"
    assert "extended key usage" in refused.message


def test_usage_any_takes_a_certificate_of_the_other_role(lab, version):
    pair = lab.pair(lab.settings("client", peer_usage="any", **version), lab.settings("server", lab.client))
    assert outcome(pair) == (None, None)


def test_name_must_match(lab, version):
    assert_client_refuses(lab, None, "name_mismatch", "'elsewhere'", version, peer_name="elsewhere")
    assert_client_refuses(lab, None, "name_mismatch", "begins with 'x'", version, peer_name_prefix="x")
    for rule in ({"peer_name": "hub"}, {"peer_name_prefix": "hu"}):
        assert outcome(lab.pair(lab.settings("client", **rule, **version))) == (None, None)


def test_part_of_the_name_is_not_the_name(lab, version):
    assert_client_refuses(lab, None, "name_mismatch", "'hub2'", version, peer_name="hub2")
    assert_client_refuses(lab, None, "name_mismatch", "'hu'", version, peer_name="hu")


@pytest.mark.parametrize("name", ["bad\nname", "bad\x07name", " \x85"])
def test_unprintable_name_is_refused_and_not_printed(lab, name, version):
    evil = lab.authority.issue(name, "client")
    pair = lab.pair(lab.settings("client", evil, **version))
    _, at_server = outcome(pair)
    assert at_server.code == "certificate_rejected" and name not in at_server.message
    assert at_server.message.isprintable()


def test_fingerprint_alone_is_enough_and_must_match(lab, version):
    server, client = self_signed("hub"), self_signed("site-b")
    trust = {"ca_pem": None, "peer_usage": "any"}
    pair = lab.pair(
        lab.settings("client", client, **trust, peer_fingerprints=(server.fingerprint,), **version),
        lab.settings("server", server, **trust, peer_fingerprints=("00" * 32, client.fingerprint)),
    )
    assert outcome(pair) == (None, None)
    assert pair.server.summary().peer_name == "site-b"
    pair = lab.pair(
        lab.settings("client", client, **trust, peer_fingerprints=(server.fingerprint,), **version),
        lab.settings("server", server, **trust, peer_fingerprints=(server.fingerprint,)),
    )
    at_client, at_server = outcome(pair)
    assert at_server.code == "certificate_rejected" and client.fingerprint in at_server.message
    assert at_client.code == "certificate_rejected", at_client.message


def test_fingerprint_of_a_certificate_with_unknown_issuer_is_enough(lab, version):
    stranger = lab.other_authority.issue("site-b", "client")
    pair = lab.pair(
        lab.settings("client", stranger, **version),
        lab.settings("server", ca_pem=None, peer_fingerprints=(stranger.fingerprint,)),
    )
    assert outcome(pair) == (None, None)


def test_pinned_certificate_that_expired_is_refused(lab, version):
    old = lab.authority.issue("site-b", "client", EXPIRED)
    assert_server_refuses(
        lab,
        old,
        "certificate_expired",
        "has expired",
        version,
        ca_pem=None,
        peer_fingerprints=(old.fingerprint,),
    )


def test_beside_a_ca_the_fingerprint_must_match_too(lab, version):
    stranger = lab.other_authority.issue("site-b", "client")
    pins = (stranger.fingerprint,)
    assert_server_refuses(lab, None, "certificate_rejected", "fingerprint", version, peer_fingerprints=pins)
    assert_server_refuses(
        lab, stranger, "certificate_rejected", "not issued", version, peer_fingerprints=pins
    )
    pins = (lab.client.fingerprint,)
    pair = lab.pair(lab.settings("client", **version), lab.settings("server", peer_fingerprints=pins))
    assert outcome(pair) == (None, None)


def test_revoked_certificate_is_refused_and_others_pass(lab, version):
    crl = lab.authority.revocation_list([lab.client])
    peer = assert_server_refuses(lab, None, "certificate_revoked", "revoked", version, crl_pem=crl)
    assert peer.code == "certificate_revoked"
    other = lab.authority.issue("site-c", "client")
    pair = lab.pair(lab.settings("client", other, **version), lab.settings("server", crl_pem=crl))
    assert outcome(pair) == (None, None)


def test_expired_revocation_list_is_an_outcome_of_its_own(lab, version):
    crl = lab.authority.revocation_list([], EXPIRED)
    assert_server_refuses(lab, None, "crl_expired", "`tls.crl` has expired", version, crl_pem=crl)


def test_revocation_list_of_another_ca_does_not_count(lab, version):
    crl = lab.other_authority.revocation_list([])
    assert_server_refuses(lab, None, "certificate_rejected", "no revocation list", version, crl_pem=crl)


def test_client_that_shows_no_certificate_is_refused(lab):
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_METHOD)
    bare = SSL.Connection(context, None)
    bare.set_connect_state()
    server = make_engine_factory(lab.settings("server"))()
    with pytest.raises(TlsError) as caught:
        for _ in range(4):
            try:
                bare.do_handshake()
            except SSL.WantReadError:
                pass
            server.receive(bare.bio_read(65536))
            bare.bio_write(server.take_ciphertext())
    assert caught.value.code == "certificate_rejected" and "no certificate" in caught.value.message


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ca_pem": None}, "nothing identifies the peer"),
        ({"ca_pem": None, "peer_fingerprints": ("ab",)}, "not a SHA-256 fingerprint"),
        ({"ca_pem": None, "peer_fingerprints": ("0" * 64,), "crl_pem": b"x"}, "needs the CA"),
        ({"ca_pem": b"junk"}, "not a PEM certificate"),
        ({"crl_pem": b"junk"}, "X509 CRL"),
        ({"key_pem": b"junk"}, "not a PEM private key"),
        ({"certificate_pem": b"junk"}, "not a PEM certificate"),
        ({"version_min": "1.3", "version_max": "1.2"}, "above version_max"),
    ],
)
def test_unusable_settings_are_refused_before_any_handshake(lab, changes, text):
    with pytest.raises(ConfigurationError, match=text) as caught:
        make_engine_factory(lab.settings("server", **changes))
    assert caught.value.key.startswith("tls.")


def test_key_of_another_certificate_is_refused(lab):
    with pytest.raises(ConfigurationError, match="does not belong"):
        make_engine_factory(lab.settings("server", key_pem=lab.client.key_pem))


def test_encrypted_key_is_refused_with_the_command_that_helps(lab):
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key(lab.server.key_pem, None)
    pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"pw"))
    with pytest.raises(ConfigurationError, match="openssl pkey"):
        make_engine_factory(lab.settings("server", key_pem=pem))


def test_settings_show_no_key_and_can_be_wiped(lab):
    settings = lab.settings("server", key_pem=bytearray(lab.server.key_pem))
    assert "PRIVATE" not in repr(settings)
    make_engine_factory(settings)
    settings.wipe()
    assert not any(settings.key_pem)


def test_usage_auto_is_the_other_role_or_any_for_a_pinned_peer():
    assert peer_usage("client", "auto", True) == "server"
    assert peer_usage("server", "auto", True) == "client"
    assert peer_usage("server", "auto", False) == "any"
    assert peer_usage("server", "server", False) == "server"
    assert peer_usage("server", "any", True) == "any"
    assert peer_usage("server", "compatible", True) == "client_or_none"
    assert peer_usage("client", "compatible", True) == "server_or_none"


def test_fingerprint_is_read_as_openssl_prints_it(lab):
    text = lab.client.fingerprint
    colons = ":".join(text[i : i + 2].upper() for i in range(0, 64, 2))
    assert parse_fingerprint(colons) == parse_fingerprint(text) == bytes.fromhex(text)


def test_a_refused_certificate_is_named_by_subject_issuer_and_serial() -> None:
    certificate = Authority("Our CA").issue("site-b", "client").certificate
    text = describe(certificate)
    assert "CN=site-b" in text and "issued by CN=Our CA" in text
    assert f"serial {certificate.serial_number:X}" in text
    assert len(text) < 400 and text.isprintable()


def test_a_certificate_with_serial_number_0_writes_no_warning_of_a_library() -> None:
    program = (
        "import sys, bridged\n"
        "from cryptography import x509\n"
        "print(x509.load_pem_x509_certificate(sys.stdin.buffer.read()).serial_number)\n"
    )
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", "/dev/null", "-days", "30", "-subj", "/CN=zero", "-set_serial", "0"),
        ],
        capture_output=True,
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        input=made.stdout,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == b"0"
    assert done.stderr == b""
