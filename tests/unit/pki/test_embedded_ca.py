"""The embedded CA: what it makes, what it refuses, what a crash or a second process leaves."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from bridged import WRITTEN_AFTER
from bridged.files import write_atomic
from bridged.pki import EmbeddedCa, PkiError, embedded_tls_material, tls_crypt_key_path
from bridged.pki import authority as authority_module
from bridged.pki.certificates import Validity, build_revocation_list
from bridged.protocol.keys.static_key import parse_static_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(moment):
    return lambda: moment


@pytest.fixture
def ca(tmp_path):
    return EmbeddedCa.create(tmp_path / "state", clock=at(NOW))


def load(pem):
    return x509.load_pem_x509_certificate(pem)


def test_create_leaves_exactly_these_files_with_private_ones_private(ca, tmp_path):
    modes = {
        str(path.relative_to(tmp_path / "state")): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "state").rglob("*")
    }
    assert modes == {
        ".pki.lock": 0o600,
        "pki": 0o700,
        "pki/ca.crt": 0o644,
        "pki/ca.key": 0o600,
        "pki/index.json": 0o600,
        "pki/issued": 0o700,
        "pki/issued/server.crt": 0o644,
        "pki/server.crt": 0o644,
        "pki/server.key": 0o600,
        "pki/tls-crypt.key": 0o600,
    }
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_certificates_are_p256_sha256_with_random_128_bit_serials(ca):
    first, second = (
        load(ca.issue("a", "client").certificate_pem),
        load(ca.issue("b", "client").certificate_pem),
    )
    for certificate in (load(ca.certificate_pem), first, second):
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
        assert certificate.public_key().curve.name == "secp256r1"
        assert certificate.signature_hash_algorithm.name == "sha256"
        assert len(certificate.serial_number.to_bytes(20, "big").lstrip(b"\0")) == 16
    assert first.serial_number != second.serial_number


def test_extensions_say_who_may_do_what(ca):
    root = load(ca.certificate_pem)
    basic = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical and basic.value.ca and basic.value.path_length == 0
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and usage.value.crl_sign
    assert not usage.value.digital_signature
    for name, kind, oid in (
        ("a", "client", ExtendedKeyUsageOID.CLIENT_AUTH),
        ("b", "server", ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        leaf = load(ca.issue(name, kind).certificate_pem)
        extension = leaf.extensions.get_extension_for_class
        assert not extension(x509.BasicConstraints).value.ca
        assert extension(x509.KeyUsage).value.digital_signature
        assert list(extension(x509.ExtendedKeyUsage).value) == [oid]
        root_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        assert extension(x509.AuthorityKeyIdentifier).value.key_identifier == root_id
        assert extension(x509.SubjectKeyIdentifier).value.digest != root_id


def test_openssl_verifies_the_chain_strictly(ca, tmp_path):
    (tmp_path / "leaf.crt").write_bytes(ca.issue("a", "client").certificate_pem)
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslclient",
        "-attime",
        str(NOW.timestamp())[:-2],
    ]
    result = subprocess.run(
        [*command, "-CAfile", str(ca.directory / "ca.crt"), str(tmp_path / "leaf.crt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_validity_ends_with_the_ca_at_the_latest(ca, tmp_path):
    end = load(ca.certificate_pem).not_valid_after_utc
    assert end == NOW + timedelta(days=3650)
    assert load(ca.issue("a", "client", days=30).certificate_pem).not_valid_after_utc == NOW + timedelta(
        days=30
    )
    late = EmbeddedCa.open(tmp_path / "state", clock=at(NOW + timedelta(days=3000)))
    assert late.issue("b", "client").not_after == end
    dead = EmbeddedCa.open(tmp_path / "state", clock=at(NOW + timedelta(days=3651)))
    with pytest.raises(PkiError) as caught:
        dead.issue("c", "client")
    assert caught.value.code == "pki_expired"


def test_second_create_is_refused_and_changes_nothing(ca, tmp_path):
    before = {path: path.read_bytes() for path in ca.directory.rglob("*") if path.is_file()}
    with pytest.raises(PkiError, match="lock out every invited peer") as caught:
        EmbeddedCa.create(tmp_path / "state")
    assert caught.value.code == "pki_exists"
    assert before == {path: path.read_bytes() for path in ca.directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", range(7))
def test_create_that_dies_half_way_leaves_no_ca_and_can_be_repeated(tmp_path, monkeypatch, number):
    real, calls = write_atomic, []

    def dying(path, content, mode=0o600):
        calls.append(path)
        if len(calls) > number:
            raise OSError(28, "No space left on device", str(path))
        real(path, content, mode)

    monkeypatch.setattr(authority_module, "write_atomic", dying)
    if number < 6:
        with pytest.raises(OSError, match="No space"):
            EmbeddedCa.create(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".pki.lock"]
    monkeypatch.setattr(authority_module, "write_atomic", real)
    EmbeddedCa.create(tmp_path)


def test_of_two_creators_at_once_exactly_one_wins(tmp_path):
    results = []

    def create():
        try:
            EmbeddedCa.create(tmp_path)
            results.append("made")
        except PkiError as error:
            results.append(error.code)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["made", "pki_exists", "pki_exists", "pki_exists"]


def test_ensure_makes_once_and_keeps_afterwards(tmp_path):
    first = EmbeddedCa.ensure(tmp_path)
    wrap = first.tls_crypt_key
    server = (tmp_path / "pki/server.crt").read_bytes()
    second = EmbeddedCa.ensure(tmp_path)
    assert second.certificate_pem == first.certificate_pem
    assert second.tls_crypt_key == wrap
    assert (tmp_path / "pki/server.crt").read_bytes() == server
    parse_static_key(wrap, "tls-crypt.key")


def test_ensure_makes_what_is_missing(ca, tmp_path):
    for name in ("server.crt", "tls-crypt.key"):
        (ca.directory / name).unlink()
    EmbeddedCa.ensure(tmp_path / "state", clock=at(NOW))
    assert (ca.directory / "server.crt").exists() and tls_crypt_key_path(tmp_path / "state").exists()


def test_ensure_renews_a_server_certificate_that_is_about_to_end(ca, tmp_path):
    state = tmp_path / "state"
    old = (ca.directory / "server.crt").read_bytes()
    EmbeddedCa.ensure(state, clock=at(NOW + timedelta(days=700)))
    assert (ca.directory / "server.crt").read_bytes() == old
    EmbeddedCa.ensure(state, clock=at(NOW + timedelta(days=790)))
    new = (ca.directory / "server.crt").read_bytes()
    assert new != old
    assert load(new).not_valid_after_utc == NOW + timedelta(days=790 + 825)
    assert [row.name for row in ca.certificates()] == ["server"]
    assert ca.crl() is None


def test_missing_ca_key_is_told_and_nothing_is_made_anew(ca, tmp_path):
    (ca.directory / "ca.key").unlink()
    for way in (EmbeddedCa.open, EmbeddedCa.ensure):
        with pytest.raises(PkiError, match=r"ca\.key is missing; restore") as caught:
            way(tmp_path / "state")
        assert caught.value.code == "pki_damaged"
    assert not (ca.directory / "ca.key").exists()


@pytest.mark.parametrize("name", ["ca.key", "ca.crt"])
def test_damaged_file_is_named(ca, tmp_path, name):
    (ca.directory / name).write_text("junk")
    with pytest.raises(PkiError, match=name) as caught:
        EmbeddedCa.open(tmp_path / "state")
    assert caught.value.code == "pki_damaged"


def test_key_of_another_ca_is_noticed(ca, tmp_path):
    other = EmbeddedCa.create(tmp_path / "other")
    (ca.directory / "ca.key").write_bytes((other.directory / "ca.key").read_bytes())
    with pytest.raises(PkiError, match="does not belong"):
        EmbeddedCa.open(tmp_path / "state")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', "nonsense", "[" * 100_000])
def test_damaged_index_is_told(ca, content):
    (ca.directory / "index.json").write_text(content)
    with pytest.raises(PkiError) as caught:
        ca.issue("a", "client")
    assert caught.value.code == "pki_damaged"


def test_no_ca_is_told_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(PkiError, match="bridged init") as caught:
        EmbeddedCa.open(tmp_path)
    assert caught.value.code == "pki_missing"


def test_name_can_be_issued_once_until_it_is_revoked(ca):
    first = ca.issue("site-b", "client")
    with pytest.raises(PkiError, match="'site-b' already exists") as caught:
        ca.issue("site-b", "client")
    assert caught.value.code == "pki_duplicate"
    ca.revoke("site-b")
    second = ca.issue("site-b", "client")
    assert load(first.certificate_pem).serial_number != load(second.certificate_pem).serial_number


def test_server_name_is_taken(ca):
    with pytest.raises(PkiError, match="already exists"):
        ca.issue("server", "client")


BAD_NAMES = ["", "a/b", "../x", ".hidden", "-x", "a b", "x" * 65, "a\nb", "a\0b", "ü", "a:b", "a\n", "$(id)"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_before_anything_is_written(ca, name):
    before = sorted(path.name for path in ca.directory.rglob("*"))
    with pytest.raises(PkiError) as caught:
        ca.issue(name, "client")
    assert caught.value.code == "pki_name"
    assert sorted(path.name for path in ca.directory.rglob("*")) == before


def test_longest_name_is_good(ca):
    assert ca.issue("x" * 64, "client").name == "x" * 64


def test_revocation_list_holds_the_revoked_and_nobody_else(ca):
    assert ca.crl() is None
    revoked = load(ca.issue("a", "client").certificate_pem)
    good = load(ca.issue("b", "client").certificate_pem)
    ca.revoke("a")
    crl = x509.load_pem_x509_crl(ca.crl())
    assert crl.is_signature_valid(load(ca.certificate_pem).public_key())
    assert crl.get_revoked_certificate_by_serial_number(revoked.serial_number) is not None
    assert crl.get_revoked_certificate_by_serial_number(good.serial_number) is None
    assert crl.next_update_utc == load(ca.certificate_pem).not_valid_after_utc
    with pytest.raises(PkiError) as caught:
        ca.revoke("a")
    assert caught.value.code == "pki_unknown"


def test_key_of_a_client_is_not_kept_and_not_shown(ca):
    identity = ca.issue("a", "client")
    assert "PRIVATE" not in repr(identity)
    body = identity.key_pem.split(b"\n")[1]
    assert not any(body in path.read_bytes() for path in ca.directory.rglob("*") if path.is_file())


def test_remote_is_remembered(ca, tmp_path):
    assert ca.remote is None
    ca.set_remote("vpn.example.net:1194")
    assert EmbeddedCa.open(tmp_path / "state").remote == "vpn.example.net:1194"
    assert json.loads((ca.directory / "index.json").read_text())["remote"] == "vpn.example.net:1194"


def test_embedded_material_works_in_a_handshake_and_revocation_ends_it(tmp_path):
    from bridged.errors import TlsError
    from bridged.tls import TlsSettings, make_engine_factory

    ca_pem, certificate, key, crl = embedded_tls_material(tmp_path)
    assert crl is None
    authority = EmbeddedCa.open(tmp_path)
    client = authority.issue("site-b", "client")

    def handshake(crl_pem):
        server = make_engine_factory(
            TlsSettings("server", certificate, key, ca_pem, crl_pem, peer_usage="client")
        )()
        peer = make_engine_factory(
            TlsSettings("client", client.certificate_pem, client.key_pem, ca_pem, peer_usage="server")
        )()
        peer.start()
        for _ in range(3):
            server.receive(peer.take_ciphertext())
            peer.receive(server.take_ciphertext())
        return server.summary().peer_name

    assert handshake(None) == "site-b"
    authority.revoke("site-b")
    with pytest.raises(TlsError) as caught:
        handshake(embedded_tls_material(tmp_path)[3])
    assert caught.value.code == "certificate_revoked"


def test_a_clock_that_is_older_than_the_program_makes_no_ca(tmp_path):
    for moment in (datetime(1970, 1, 1, 0, 10, tzinfo=UTC), WRITTEN_AFTER - timedelta(seconds=1)):
        for make in (EmbeddedCa.create, EmbeddedCa.ensure):
            with pytest.raises(PkiError, match="Set the clock") as caught:
                make(tmp_path / "state", clock=at(moment))
            assert caught.value.code == "pki_clock"
    assert not (tmp_path / "state" / "pki").exists()
    EmbeddedCa.create(tmp_path / "state", clock=at(WRITTEN_AFTER))


def test_a_clock_that_is_older_than_the_ca_issues_nothing_and_starts_all_the_same(ca, tmp_path):
    state = tmp_path / "state"
    old = at(datetime(1970, 1, 1, tzinfo=UTC))
    with pytest.raises(PkiError) as caught:
        EmbeddedCa.open(state, clock=old).issue("a", "client")
    assert caught.value.code == "pki_clock"
    before = (ca.directory / "server.crt").read_bytes()
    EmbeddedCa.ensure(state, clock=old)
    assert (ca.directory / "server.crt").read_bytes() == before


def test_the_program_is_not_younger_than_its_tests():
    assert datetime.now(UTC) >= WRITTEN_AFTER


def test_a_replaced_certificate_is_good_until_the_former_one_is_revoked(ca):
    first = ca.issue("a", "client")
    second = ca.issue("a", "client", replace=True)
    assert ca.crl() is None
    assert ca.revoke("a", keep=second.serial) == 1
    crl = x509.load_pem_x509_crl(ca.crl())
    assert [row.serial_number for row in crl] == [int(first.serial, 16)]
    with pytest.raises(PkiError, match="no valid certificate"):
        ca.revoke("a", keep=second.serial)
    ca.withdraw(second)
    assert {row.serial_number for row in x509.load_pem_x509_crl(ca.crl())} == {
        int(first.serial, 16),
        int(second.serial, 16),
    }


def test_a_server_s_name_cannot_be_replaced_or_revoked(ca):
    with pytest.raises(PkiError) as caught:
        ca.issue("server", "client", replace=True)
    assert caught.value.code == "pki_duplicate"
    with pytest.raises(PkiError, match="own certificate"):
        ca.revoke("server")


def test_the_list_for_other_programs_is_signed_again_before_it_ends(ca, tmp_path):
    state, path = tmp_path / "state", ca.directory / "crl.pem"
    ca.issue("a", "client")
    assert not path.exists()
    ca.revoke("a")
    first = path.read_bytes()
    EmbeddedCa.ensure(state, clock=at(NOW))
    assert path.read_bytes() == first, "nothing to do"
    # One that another version has signed for a shorter time, one that is not valid yet, one that is behind.
    short = build_revocation_list(
        [], 1, ca._certificate, ca._key, Validity(NOW - timedelta(days=1), NOW + timedelta(days=20))
    )
    early = build_revocation_list(
        [],
        1,
        ca._certificate,
        ca._key,
        Validity(NOW + timedelta(days=1), NOW + timedelta(days=3000)),
    )
    behind = build_revocation_list(
        [], 0, ca._certificate, ca._key, Validity(NOW, ca._certificate.not_valid_after_utc)
    )
    for stale in (short, early, behind):
        path.write_bytes(stale.public_bytes(Encoding.PEM))
        EmbeddedCa.ensure(state, clock=at(NOW))
        crl = x509.load_pem_x509_crl(path.read_bytes())
        assert len(list(crl)) == 1 and crl.next_update_utc == ca._certificate.not_valid_after_utc
    for damaged in (b"junk", b""):
        path.write_bytes(damaged)
        EmbeddedCa.ensure(state, clock=at(NOW))
        assert len(list(x509.load_pem_x509_crl(path.read_bytes()))) == 1


def test_the_mark_changes_with_the_server_s_certificate_and_with_the_list(ca, tmp_path):
    marks = [ca.mark()]
    ca.issue("a", "client")
    assert ca.mark() == marks[0]
    ca.revoke("a")
    marks.append(ca.mark())
    EmbeddedCa.ensure(tmp_path / "state", clock=at(NOW + timedelta(days=790)))
    marks.append(ca.mark())
    assert len(set(marks)) == 3
