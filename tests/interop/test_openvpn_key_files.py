"""Certificates and keys in every form: what real OpenVPN loads, `bridged import` reads."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bridged.cli.materials import Materials
from bridged.errors import ConfigurationError, ConfigurationErrors
from bridged.profiles import parse_profile
from tests.lab.openvpn_judge import loads
from tests.lab.pki import Authority, Identity, write_private

PASSWORD = "geheim ü"
PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
BAG = "Bag Attributes\n    friendlyName: Büro\n    localKeyID: 01 \nsubject=CN = x\n"
Text = str | bytes


def openssl(command: str, given: Text) -> str:
    """What OpenSSL writes, with PASSWORD in place of @."""
    argv = ["openssl", *(word.replace("@", PASSWORD) for word in command.split())]
    octets = given.encode() if isinstance(given, str) else given
    return subprocess.run(argv, input=octets, capture_output=True, check=True, timeout=30).stdout.decode()


def wrapped(pem: str, columns: int) -> str:
    begin, *rows, end = pem.strip().splitlines()
    text = "".join(rows)
    return "\n".join((begin, *(text[at : at + columns] for at in range(0, len(text), columns)), end)) + "\n"


CERTIFICATES: dict[str, Callable[[str], Text]] = {
    "plain": lambda pem: pem,
    "text above": lambda pem: openssl("x509 -text", pem),
    "bag attributes in latin-1": lambda pem: (BAG + pem).encode("latin-1"),
    "no final line feed": lambda pem: pem.rstrip(),
    "nuls at the end": lambda pem: pem + "\0\0\0",
    "crlf": lambda pem: pem.replace("\n", "\r\n"),
    "blanks at the ends of lines": lambda pem: pem.replace("\n", "  \n"),
    "one line": lambda pem: wrapped(pem, 10_000),
    "76 columns": lambda pem: wrapped(pem, 76),
    "odd columns": lambda pem: wrapped(pem, 61),
    "old label": lambda pem: pem.replace("CERTIFICATE", "X509 CERTIFICATE"),
    "with a mark": lambda pem: pem.encode("utf-8-sig"),
}
KEYS: dict[str, Callable[[str], Text]] = {
    "plain": lambda pem: pem,
    "traditional": lambda pem: openssl("pkey -traditional", pem),
    "bag attributes": lambda pem: BAG + "Key Attributes: <No Attributes>\n" + pem,
    "nul at the end": lambda pem: pem + "\0",
    "crlf": lambda pem: pem.replace("\n", "\r\n"),
    "pkcs#8, encrypted": lambda pem: openssl("pkcs8 -topk8 -passout pass:@", pem),
    "pkcs#8, scrypt": lambda pem: openssl("pkcs8 -topk8 -scrypt -passout pass:@", pem),
    "pkcs#8, 3des of old": lambda pem: openssl("pkcs8 -topk8 -v1 PBE-SHA1-3DES -passout pass:@", pem),
    "traditional, aes": lambda pem: openssl("pkey -traditional -aes256 -passout pass:@", pem),
    "traditional, 3des, crlf": lambda pem: openssl("pkey -traditional -des3 -passout pass:@", pem).replace(
        "\n", "\r\n"
    ),
    "traditional, camellia": lambda pem: openssl("pkey -traditional -camellia256 -passout pass:@", pem),
}
CURVE_KEYS = {
    "parameters first": lambda pem: PARAMETERS + openssl("pkey -traditional", pem),
    "parameters first, pkcs#8": lambda pem: PARAMETERS + pem,
    "parameters first, encrypted": lambda pem: (
        PARAMETERS + openssl("pkey -traditional -aes128 -passout pass:@", pem)
    ),
}


@pytest.fixture(scope="module", params=["rsa", "ec"])
def identity(request: pytest.FixtureRequest, authority: Authority) -> Identity:
    key = (
        rsa.generate_private_key(65537, 2048)
        if request.param == "rsa"
        else ec.generate_private_key(ec.SECP256R1())
    )
    return authority.issue(request.param, "client", key=key)


def write(path: Path, text: Text) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)


def both_read(folder: Path, ca: Text, cert: Text, key: Text) -> None:
    """OpenVPN loads the three files, and so do we."""
    for name, text in (("ca", ca), ("cert", cert), ("key", key)):
        write(folder / name, text)
    write_private(folder / "password", PASSWORD + "\n")
    options = [word for name in ("ca", "cert", "key") for word in (f"--{name}", str(folder / name))]
    if b"ENCRYPTED" in (folder / "key").read_bytes():
        options += ["--askpass", str(folder / "password")]
    assert loads(folder / "log", options), (folder / "log").read_text()
    text = "client\ndev tap\nremote h\nca ca\ncert cert\nkey key\naskpass password\n"
    texts = Materials(parse_profile(text, "p"), folder / "p.ovpn").texts()
    assert texts["own.key"].startswith("-----BEGIN ") and "ENCRYPTED" not in texts["own.key"]


@pytest.mark.parametrize("form", CERTIFICATES)
def test_certificates(tmp_path: Path, authority: Authority, identity: Identity, form: str) -> None:
    change = CERTIFICATES[form]
    both_read(tmp_path, change(authority.certificate), change(identity.certificate), identity.key)


def test_a_ca_with_settings_of_trust(tmp_path: Path, authority: Authority, identity: Identity) -> None:
    ca = openssl("x509 -trustout -addtrust serverAuth -setalias ours", authority.certificate)
    assert "TRUSTED" in ca
    both_read(tmp_path, ca, identity.certificate, identity.key)


@pytest.mark.parametrize("form", [*KEYS, *CURVE_KEYS])
def test_keys(tmp_path: Path, authority: Authority, identity: Identity, form: str) -> None:
    change = KEYS.get(form) or CURVE_KEYS[form]
    if form in CURVE_KEYS and identity.name != "ec":
        change = KEYS["plain"]
    both_read(tmp_path, authority.certificate, identity.certificate, change(identity.key))


@pytest.mark.parametrize("order", ["ca", "cert", "key"])
def test_files_that_hold_everything(
    tmp_path: Path, authority: Authority, identity: Identity, order: str
) -> None:
    whole = identity.certificate + identity.key + authority.certificate
    texts = {"ca": authority.certificate, "cert": identity.certificate, "key": identity.key, order: whole}
    both_read(tmp_path, **texts)


@pytest.mark.parametrize(
    "options",
    [
        "",
        "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1",
        "-keypbe NONE -certpbe NONE",
        "-name Büro -macalg sha512",
    ],
)
@pytest.mark.parametrize("password", ["", PASSWORD])
def test_pkcs12(
    tmp_path: Path, authority: Authority, identity: Identity, options: str, password: str
) -> None:
    file = tmp_path / "all.p12"
    write(tmp_path / "all.pem", identity.certificate + identity.key + authority.certificate)
    command = f"pkcs12 -export {options} -in {tmp_path}/all.pem -out {file} -passout"
    subprocess.run(
        ["openssl", *command.split(), f"pass:{password}"], check=True, capture_output=True, timeout=30
    )
    write_private(tmp_path / "password", password + "\n")
    given = ["--pkcs12", str(file), *(("--askpass", str(tmp_path / "password")) if password else ())]
    assert loads(tmp_path / "log", given), (tmp_path / "log").read_text()
    profile = parse_profile("client\ndev tap\nremote h\npkcs12 all.p12\naskpass password\n", "p")
    texts = Materials(profile, tmp_path / "p.ovpn").texts()
    assert texts["ca.crt"] == authority.certificate and "ENCRYPTED" not in texts["own.key"]


@pytest.mark.parametrize(
    ("form", "change"),
    [
        (
            "der",
            lambda pem: (
                subprocess.run(
                    ["openssl", "x509", "-outform", "DER"],
                    input=pem.encode(),
                    capture_output=True,
                    check=True,
                ).stdout
            ),
        ),
        ("pkcs7", lambda pem: "-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n"),
        ("nothing", lambda pem: "hello\n"),
        ("damaged", lambda pem: pem.replace("M", "?", 3)),
    ],
)
def test_what_openvpn_cannot_load_is_refused_at_the_import(
    tmp_path: Path, authority: Authority, identity: Identity, form: str, change: Callable[[str], Text]
) -> None:
    with pytest.raises((AssertionError, ConfigurationError, ConfigurationErrors)):
        both_read(tmp_path, change(authority.certificate), identity.certificate, identity.key)
    assert "fatal error" in (tmp_path / "log").read_text()
    text = "client\ndev tap\nremote h\nca ca\ncert cert\nkey key\n"
    with pytest.raises((ConfigurationError, ConfigurationErrors), match="certificate"):
        Materials(parse_profile(text, "p"), tmp_path / "p.ovpn").texts()
