"""`bridged join` with certificates and keys as other programs write them."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    NoEncryption,
    load_pem_private_key,
    pkcs12,
)

from bridged.configuration import load
from bridged.pki import EmbeddedCa
from bridged.tls.pem import pem_blocks

HEAD = "client\ndev tap\nremote hub 1194\nnobind\nremote-cert-tls server\n"
FILES = "ca ca.crt\ncert client.crt\nkey client.key\ntls-auth ta.key 1\n"


@pytest.fixture
def site(tmp_path):
    """A client's identity, as PEM bytes by the usual file name."""
    authority = EmbeddedCa.create(tmp_path / "authority")
    identity = authority.issue("site-b", "client", days=30)
    return {
        "ca.crt": authority.certificate_pem,
        "client.crt": identity.certificate_pem,
        "client.key": bytes(identity.key_pem),
        "ta.key": authority.tls_crypt_key.encode(),
    }


def lay_down(site, text):
    for name, content in site.items():
        Path(name).write_bytes(content)
    Path("p.ovpn").write_bytes(text if isinstance(text, bytes) else text.encode())


def joined(bridged, *options):
    status, _, errors = bridged("join", "p.ovpn", "--bridge", "br0", "--output", "c.yaml", *options)
    assert status == 0, errors
    return load(Path("c.yaml")).tunnels["p"], errors


def refused(bridged):
    status, out, errors = bridged("join", "p.ovpn", "--bridge", "br0")
    assert status == 2 and out == ""
    return errors


def test_text_in_any_characters_around_pem_blocks_is_left_out(bridged, site):
    bag = "Bag Attributes\n    friendlyName: Büro\n".encode("latin-1")
    lay_down({name: bag + content for name, content in site.items()}, HEAD + FILES)
    tunnel, _ = joined(bridged)
    assert tunnel.tls.key.encode() == pem_blocks(site["client.key"])
    assert "Bag" not in tunnel.tls.ca and tunnel.wrap.direction == 1


def test_nuls_behind_a_key_are_left_out(bridged, site):
    lay_down({name: content + bytes(512) for name, content in site.items()}, HEAD + FILES)
    tunnel, _ = joined(bridged)
    assert tunnel.tls.key.encode() == pem_blocks(site["client.key"])


def test_one_file_with_certificate_and_key_gives_each_what_it_needs(bridged, site):
    whole = site["client.key"] + site["client.crt"] + site["ca.crt"]
    lay_down({**site, "all.pem": whole}, HEAD + "ca ca.crt\ncert all.pem\nkey all.pem\n")
    tunnel, _ = joined(bridged)
    assert "PRIVATE KEY" not in tunnel.tls.certificate and "CERTIFICATE" not in tunnel.tls.key


def test_a_latin_1_comment_in_the_profile_is_taken(bridged, site):
    lay_down(site, "# Büro\n".encode("latin-1") + (HEAD + FILES).encode())
    joined(bridged)


def test_utf_16_is_read_with_a_mark_and_names_the_cure_without(bridged, site):
    lay_down(site, (HEAD + FILES).encode("utf-16"))
    joined(bridged)
    lay_down(site, (HEAD + FILES).encode("utf-16-le"))
    assert "p.ovpn:1" in (errors := refused(bridged)) and "iconv -f UTF-16LE -t UTF-8" in errors


def test_the_profile_itself_may_come_through_a_pipe_but_no_file_that_it_names(bridged, site):
    lay_down(site, HEAD + FILES)
    reader, writer = os.pipe()
    os.write(writer, (HEAD + FILES).replace("ca.crt", str(Path("ca.crt").absolute())).encode())
    os.close(writer)
    try:
        status, _, errors = bridged("join", f"/proc/self/fd/{reader}", "--bridge", "br0")
        assert status == 2 and "client.crt" in errors  # read, and looked for beside the pipe
    finally:
        os.close(reader)
    os.mkfifo("pipe")
    Path("p.ovpn").write_text(HEAD + FILES.replace("ca.crt", "pipe"))
    assert "is not a regular file" in refused(bridged)


@pytest.mark.parametrize("lines", [FILES, "pkcs12 site.p12\n"])
def test_key_files_that_others_may_read_are_said(bridged, site, lines):
    lay_down({**site, "site.p12": packed(site, NoEncryption())}, HEAD + lines)
    for name in ("client.key", "ta.key", "site.p12", "p.ovpn"):
        Path(name).chmod(0o600)
    secret = Path("client.key" if lines == FILES else "site.p12")
    assert "may be read by others" not in joined(bridged)[1]
    Path("c.yaml").unlink()
    secret.chmod(0o640)
    _, errors = joined(bridged)
    assert f"{secret} may be read by others" in errors and "chmod 600" in errors


# PKCS#12


def packed(site, encryption):
    key = load_pem_private_key(site["client.key"], None)
    certificate, ca = (x509.load_pem_x509_certificate(site[name]) for name in ("client.crt", "ca.crt"))
    return pkcs12.serialize_key_and_certificates(b"site-b", key, certificate, [ca], encryption)


@pytest.mark.parametrize("is_inline", [False, True])
def test_a_pkcs12_file_or_block_without_a_password_is_read(bridged, site, is_inline):
    content = packed(site, NoEncryption())
    lines = "<pkcs12>\n" + base64.encodebytes(content).decode() + "</pkcs12>\n"
    lay_down({"site.p12": content}, HEAD + (lines if is_inline else "pkcs12 site.p12\n"))
    tunnel, _ = joined(bridged)
    assert tunnel.tls.ca.encode() == site["ca.crt"]
    assert tunnel.tls.certificate.encode() == site["client.crt"]
    keys = (tunnel.tls.key.encode(), site["client.key"])
    ours, theirs = (load_pem_private_key(key, None) for key in keys)
    assert isinstance(ours, ec.EllipticCurvePrivateKey) and isinstance(theirs, ec.EllipticCurvePrivateKey)
    assert ours.private_numbers() == theirs.private_numbers()


def test_a_pkcs12_file_may_lack_what_the_profile_names_itself(bridged, site):
    lay_down({**site, "site.p12": packed(site, NoEncryption())}, HEAD + "ca ca.crt\npkcs12 site.p12\n")
    joined(bridged)


def typed(errors, password):
    """Run the command that an error shows, as a user who types the password."""
    (command,) = re.findall(r"`(openssl pkcs12 .*?)`", errors)
    shell = command.replace(" -noenc", f" -passin pass:{password} -noenc", 1)
    subprocess.run(shell, shell=True, check=True, capture_output=True, timeout=30)


def test_a_pkcs12_file_with_a_password_is_refused_with_a_command_that_works(bridged, site):
    lay_down({"site.p12": packed(site, BestAvailableEncryption(b"secret"))}, HEAD + "pkcs12 site.p12\n")
    errors = refused(bridged)
    assert "p.ovpn:6: pkcs12" in errors and "-legacy" not in errors
    typed(errors, "secret")
    Path("p.ovpn").write_text(HEAD + "pkcs12 open.p12\n")
    joined(bridged)


@pytest.mark.parametrize("password", ["", "x"])
@pytest.mark.parametrize("kind", ["PBE-SHA1-RC2-40", "PBE-SHA1-RC4-128"])
def test_an_rc2_file_is_refused_on_every_machine_with_a_command_that_says_legacy_and_works(
    bridged, site, kind, password
):
    lay_down({**site, "all.pem": b"".join(site.values()), "pass": b"x\n"}, HEAD + "pkcs12 my.p12\n")
    export = (
        f"openssl pkcs12 -export -legacy -certpbe {kind} -in all.pem -passout pass:{password} -out my.p12"
    )
    subprocess.run(export.split(), check=True, capture_output=True, timeout=30)
    status, _, errors = bridged("import", "p.ovpn", "--password-file", "pass")
    assert status == 2 and " -legacy " in errors and "OpenSSL 3 cannot open it either" in errors
    errors = refused(bridged)
    assert " -legacy " in errors
    typed(errors, password)
    Path("p.ovpn").write_text(HEAD + "pkcs12 open.p12\n")
    joined(bridged)


def test_what_is_no_pkcs12_file_is_called_so(bridged, site):
    lay_down({"site.p12": b"hello"}, HEAD + "pkcs12 site.p12\n")
    assert "is not a PKCS#12 file" in refused(bridged)
    lay_down({}, HEAD + "<pkcs12>\n*\n</pkcs12>\n")
    assert "not Base64" in refused(bridged)
