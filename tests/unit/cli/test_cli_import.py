"""`bridged import` and `export` as a user calls them: keys in each form, paths of Windows, the report."""

from __future__ import annotations

import base64
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from bridged.configuration import load
from bridged.pki import EmbeddedCa
from bridged.profiles import parse_profile
from bridged.protocol.keys.client_wrap_key import ServerWrapKey
from bridged.protocol.keys.static_key import parse_static_key
from tests.unit.tls.tls_lab import EXPIRED, Authority

HEAD = "client\ndev tap\nremote hub 1194\nnobind\nremote-cert-tls server\n"
FILES = "ca ca.crt\ncert client.crt\nkey client.key\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A client's identity, as PEM bytes by the usual file name."""
    authority = EmbeddedCa.create(tmp_path_factory.mktemp("authority"))
    identity = authority.issue("site-b", "client", days=30)
    return {
        "ca.crt": authority.certificate_pem,
        "client.crt": identity.certificate_pem,
        "client.key": bytes(identity.key_pem),
    }


def lay_down(files, text, name="p.ovpn"):
    for path, content in files.items():
        Path(path).write_bytes(content)
        Path(path).chmod(0o600)
    Path(name).write_text(text)
    Path(name).chmod(0o600)


def imported(bridged, *options, name="p.ovpn"):
    Path("c.yaml").unlink(missing_ok=True)
    status, _, errors = bridged("import", name, "--output", "c.yaml", *options)
    assert status == 0, errors
    return load(Path("c.yaml")), errors


def refused(bridged, *options, name="p.ovpn"):
    status, out, errors = bridged("import", name, *options)
    assert status == 2 and out == ""
    return errors


def key_of(site):
    return load_pem_private_key(site["client.key"], None)


def same_key(tunnel, site):
    found = load_pem_private_key(tunnel.tls.key.encode(), None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found.private_numbers() == key_of(site).private_numbers()


# Keys that need a password


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_opened_by_a_password_file_or_askpass(bridged, site, form):
    locked = key_of(site).private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))
    lay_down({**site, "client.key": locked, "pass": b"secret\r\nmore\n"}, HEAD + FILES)
    errors = refused(bridged)
    assert "p.ovpn:8: key: " in errors and "--password-file FILE" in errors and "openssl pkey" in errors
    configuration, errors = imported(bridged, "--password-file", "pass")
    assert same_key(configuration.tunnels["p"], site) and "without its password" in errors
    lay_down({}, HEAD + FILES + "askpass pass\n")
    assert same_key(imported(bridged)[0].tunnels["p"], site)
    lay_down({"pass": b"wrong"}, HEAD + FILES + "askpass pass\n")
    assert "cannot be opened with this password" in refused(bridged)


def test_a_terminal_is_asked_for_the_password(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    locked = key_of(site).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    lay_down({**site, "client.key": locked}, HEAD + FILES)
    program = str(Path(sys.executable).with_name("bridged"))
    terminal, inner = pty.openpty()
    command = ["setsid", "-c", "-w", program, "import", "p.ovpn", "--output", "c.yaml"]
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner) as child:
        os.close(inner)
        shown = b""
        while select.select([terminal], [], [], 60)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:
                break  # The program has closed its terminal.
            if shown.endswith(b"Password of the private key: "):
                os.write(terminal, b"secret\n")
        os.close(terminal)
    assert child.returncode == 0, shown
    assert b"Password of the private key: " in shown and b"secret" not in shown
    assert same_key(load(Path("c.yaml")).tunnels["p"], site)


@pytest.mark.parametrize("is_inline", [False, True])
def test_a_pkcs12_file_with_a_password_is_opened(bridged, site, is_inline):
    certificate, ca = (x509.load_pem_x509_certificate(site[name]) for name in ("client.crt", "ca.crt"))
    content = pkcs12.serialize_key_and_certificates(
        b"site-b", key_of(site), certificate, [ca], BestAvailableEncryption(b"secret")
    )
    block = "<pkcs12>\n" + base64.encodebytes(content).decode() + "</pkcs12>\n"
    lay_down({"site.p12": content, "pass": b"secret\n"}, HEAD + (block if is_inline else "pkcs12 site.p12\n"))
    configuration, _ = imported(bridged, "--password-file", "pass")
    assert same_key(configuration.tunnels["p"], site)
    assert "openssl pkcs12" in refused(bridged)
    lay_down({"pass": b"wrong"}, Path("p.ovpn").read_text())
    assert "cannot be opened with this password" in refused(bridged, "--password-file", "pass")


def test_beside_a_ca_the_certificates_of_a_pkcs12_file_complete_our_chain_and_are_not_trusted(bridged, site):
    own, ca = (x509.load_pem_x509_certificate(site[name]) for name in ("client.crt", "ca.crt"))
    other = Authority("Another")
    content = pkcs12.serialize_key_and_certificates(b"b", key_of(site), own, [ca], NoEncryption())
    lay_down({"ca.crt": other.pem, "site.p12": content}, HEAD + "ca ca.crt\npkcs12 site.p12\n")
    tls = imported(bridged)[0].tunnels["p"].tls
    assert tls.ca.encode() == other.pem
    assert tls.certificate.encode() == site["client.crt"] + b"\n" + site["ca.crt"]


# PEM as other programs write it


def test_blocks_without_a_line_feed_between_them_and_other_blocks_are_read(bridged, site):
    traditional = key_of(site).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert isinstance(key_of(site), ec.EllipticCurvePrivateKey)
    chain = site["ca.crt"].rstrip() + site["ca.crt"]
    text = "Certificate:\n    Data: Büro\n".encode("latin-1") + site["client.crt"]
    lay_down({"ca.crt": chain, "client.crt": text, "client.key": parameters + traditional}, HEAD + FILES)
    tunnel = imported(bridged)[0].tunnels["p"]
    assert tunnel.tls.ca.count("BEGIN CERTIFICATE") == 2 and tunnel.tls.key.startswith(
        "-----BEGIN EC PRIVATE"
    )


def test_a_trusted_certificate_is_read_as_the_certificate_in_it(bridged, site):
    Path("plain.crt").write_bytes(site["ca.crt"])
    command = "openssl x509 -in plain.crt -trustout -addtrust clientAuth -setalias ours -out trusted.crt"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=30)
    assert b"BEGIN TRUSTED CERTIFICATE" in Path("trusted.crt").read_bytes()
    lay_down(site, HEAD + FILES.replace("ca.crt", "trusted.crt"))
    assert imported(bridged)[0].tunnels["p"].tls.ca.encode() == site["ca.crt"]


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_pem_files_that_an_editor_of_windows_saved_are_read(bridged, site, mark):
    lay_down({name: content.decode().encode(mark) for name, content in site.items()}, HEAD + FILES)
    tunnel = imported(bridged)[0].tunnels["p"]
    assert tunnel.tls.certificate.encode() == site["client.crt"] and same_key(tunnel, site)


def test_a_certificate_that_has_expired_is_said(bridged, site):
    authority = Authority()
    old = authority.issue("site-b", "client", EXPIRED)
    pem = {"ca.crt": authority.pem, "client.crt": old.certificate_pem, "client.key": old.key_pem}
    lay_down(pem, HEAD + FILES)
    assert "warning: the certificate expired on" in imported(bridged)[1]


@pytest.mark.parametrize("cipher", ["des3", "aes256", "camellia128", "aria192"])
def test_keys_of_every_cipher_of_openssl_are_opened(bridged, site, cipher):
    command = f"openssl ec -{cipher} -passout pass:secret -out locked.key"
    subprocess.run(command.split(), input=site["client.key"], check=True, capture_output=True, timeout=30)
    lay_down({**site, "pass": b"secret"}, HEAD + FILES.replace("client.key", "locked.key") + "askpass pass\n")
    assert b"Proc-Type: 4,ENCRYPTED" in Path("locked.key").read_bytes()
    assert same_key(imported(bridged)[0].tunnels["p"], site)


def test_a_typographic_character_in_a_file_s_name_is_named(bridged, site):
    lay_down(
        site,
        HEAD + FILES.replace("ca ca.crt", "ca \u201cca.crt\u201d").replace("client.key", "client.key\u00a0"),
    )
    errors = refused(bridged)
    assert "p.ovpn:6: ca: " in errors and "U+201C" in errors
    assert "p.ovpn:8: key: " in errors and "U+00A0" in errors


def test_a_certificate_that_is_made_for_the_other_role_is_said(bridged, site):
    authority = Authority()
    for usage, says in (("server", True), ("client", False)):
        own = authority.issue("site-b", usage)
        lay_down(
            {"ca.crt": authority.pem, "client.crt": own.certificate_pem, "client.key": own.key_pem},
            HEAD + FILES,
        )
        assert ("warning: the certificate is not for a client" in imported(bridged)[1]) == says


# Paths of Windows


def test_a_file_of_a_windows_path_is_copied_beside_the_profile(bridged, site):
    lines = 'ca "C:\\\\Program Files\\\\VPN\\\\ca.crt"\ncert config\\\\client.crt\nkey client.key\n'
    lay_down({"client.crt": site["client.crt"], "client.key": site["client.key"]}, HEAD + lines)
    errors = refused(bridged)
    assert "p.ovpn:6: ca: " in errors and "copy the file ca.crt beside the profile" in errors
    lay_down(site, HEAD + lines)
    imported(bridged)


def test_a_windows_path_that_lost_its_backslashes_is_named(bridged, site):
    lay_down(site, HEAD + FILES.replace("ca ca.crt", 'ca "C:\\VPN\\ca.crt"'))
    assert "lost its backslashes" in refused(bridged)


# The command


def test_a_server_s_file_becomes_a_configuration_with_the_bridge_of_its_script(bridged, site, tmp_path):
    authority = EmbeddedCa.create(tmp_path / "state")
    folder = authority.directory
    text = (
        f"server-bridge\ndev tap0\nca {folder}/ca.crt\ncert {folder}/server.crt\nkey {folder}/server.key\n"
        "up '/etc/openvpn/up.sh br7 tap0 1500'\nverb 3\n"
    )
    lay_down({}, text, "office.conf")
    configuration, errors = imported(bridged, "--port", "eth1", "--state", "far", name="office.conf")
    assert configuration.bridges["br7"].ports == ("eth1",)
    assert configuration.tunnels["office"].role == "server"
    assert Path("far/joined/office/server.key").stat().st_mode & 0o777 == 0o600
    assert "office.conf:7: verb: not needed" in errors and "office.conf:1: server-bridge: taken" in errors
    assert imported(bridged, "--bridge", "lan", name="office.conf")[0].bridges.keys() == {"lan"}


def test_files_of_single_clients_become_entries(bridged, site, tmp_path):
    folder = EmbeddedCa.create(tmp_path / "state").directory
    pool = "server-bridge 10.0.0.4 255.255.255.0 10.0.0.50 10.0.0.99\n"
    text = f"{pool}dev tap0\nca {folder}/ca.crt\ncert {folder}/server.crt\nkey {folder}/server.key\n"
    lay_down({}, text + "client-config-dir ccd\n", "p.ovpn")
    assert "ccd cannot be read" in imported(bridged)[1]
    Path("ccd").mkdir()
    Path("ccd/site-b").write_text("ifconfig-push 10.0.0.7 255.255.255.0\npush 'dhcp-option DNS 10.0.0.1'\n")
    Path("ccd/site-c").write_text("\ndisable\niroute 10.9.0.0 255.255.255.0\n")
    Path("ccd/DEFAULT").write_text("push 'ping 3'\n")
    configuration, said = imported(bridged)
    (tunnel,) = configuration.tunnels.values()
    assert str(tunnel.clients["site-b"].address) == "10.0.0.7"
    assert tunnel.clients["site-b"].push == ("dhcp-option DNS 10.0.0.1",)
    assert not tunnel.clients["site-c"].enabled and not tunnel.only_known_clients
    assert "site-c: `iroute`: not needed" in said and "DEFAULT" in said
    assert str(tunnel.address_pool.last) == "10.0.0.99"


def test_without_the_files_of_its_clients_an_exclusive_server_is_refused(bridged, site, tmp_path):
    folder = EmbeddedCa.create(tmp_path / "state").directory
    text = f"server-bridge\ndev tap0\nca {folder}/ca.crt\ncert {folder}/server.crt\nkey {folder}/server.key\n"
    lay_down({}, text + "client-config-dir ccd\nccd-exclusive\n", "p.ovpn")
    assert "`ccd-exclusive` lets in only its clients" in refused(bridged)


def test_join_takes_the_bridge_of_the_script_or_asks_for_one(bridged, site):
    lay_down(site, HEAD + FILES)
    status, _, errors = bridged("join", "p.ovpn")
    assert status == 2 and "Give `--bridge NAME`" in errors
    lay_down(site, HEAD + FILES + "up '/etc/openvpn/up.sh br7'\n")
    status, _, errors = bridged("join", "p.ovpn", "--output", "c.yaml")
    assert (
        status == 0 and load(Path("c.yaml")).bridges.keys() == {"br7"} and "p.ovpn:9: warning: `up`" in errors
    )


def test_all_files_that_are_missing_are_named_at_once(bridged, site):
    lay_down({}, HEAD + "ca absent/ca.crt\ncert absent/client.crt\nkey absent/client.key\n")
    errors = refused(bridged)
    for line, name in ((6, "ca"), (7, "cert"), (8, "key")):
        assert f"p.ovpn:{line}: {name}: " in errors and "No such file" in errors


def test_a_refused_file_gets_one_report_and_leaves_nothing(bridged, site):
    lay_down(site, HEAD + FILES + "no-replay\nfrobnicate\n")
    status, out, errors = bridged("import", "p.ovpn", "--output", "c.yaml", "--state", "far")
    assert status == 2 and out == "" and not Path("c.yaml").exists() and not Path("far").exists()
    assert errors.count("no-replay: refused: ") == 1 and "p.ovpn:10: frobnicate: refused: " in errors
    assert "nothing was written" in errors.splitlines()[-1]


def test_an_exported_tunnel_is_read_back_the_same(bridged, site):
    lay_down(site, HEAD + FILES + "tun-mtu 1400\nmssfix 1300\nverify-x509-name 'the hub' name\nping 5\n")
    first, _ = imported(bridged)
    status, _, errors = bridged("export", "p", "--config", "c.yaml", "--output", "q.ovpn")
    assert status == 0 and "over a secure channel" in errors
    assert Path("q.ovpn").stat().st_mode & 0o777 == 0o600
    assert parse_profile(Path("q.ovpn").read_text(), "q.ovpn").notices == []
    second, _ = imported(bridged, name="q.ovpn")
    tunnels = (first.tunnels["p"], second.tunnels["q"])
    left, right = (tunnel.model_dump(exclude={"tap": {"name"}}) for tunnel in tunnels)
    assert left == right


def test_export_names_what_it_cannot_do(bridged, site):
    lay_down(site, HEAD + FILES)
    imported(bridged)
    status, _, errors = bridged("export", "x", "--config", "c.yaml")
    assert status == 2 and "no tunnel 'x'; it has p" in errors
    bridged("init", "--state", "state", "--remote", "hub", "--output", "s.yaml")
    status, _, errors = bridged("export", "server", "--config", "s.yaml")
    assert status == 2 and "`bridged invite NAME`" in errors


V2_SERVER = ServerWrapKey(bytes(range(128)))


def test_a_client_s_wrap_key_is_exported_and_a_server_s_in_its_place_is_not(bridged, site):
    key = V2_SERVER.make_client_key(os.urandom, 0)
    lay_down(site | {"v2.key": key.serialize().encode()}, HEAD + FILES + "tls-crypt-v2 v2.key\n")
    first, _ = imported(bridged)
    assert bridged("export", "p", "--config", "c.yaml", "--output", "q.ovpn")[0] == 0
    second, _ = imported(bridged, name="q.ovpn")
    assert first.tunnels["p"].wrap == second.tunnels["q"].wrap and second.tunnels["q"].wrap.key is not None
    text = Path("c.yaml").read_text()
    lines = [line for line in text.splitlines() if "OpenVPN tls-crypt-v2" in line]
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    start, end = text.index(lines[0]), text.index(lines[1]) + len(lines[1])
    wrong = "\n".join(indent + line for line in V2_SERVER.serialize().splitlines())
    Path("d.yaml").write_text(text[:start] + wrong + text[end:])
    status, _, errors = bridged("export", "q", "--config", "d.yaml", "--output", "r.ovpn")
    assert status == 2 and "tls-crypt-v2 server key" in errors and not Path("r.ovpn").exists()


@pytest.mark.parametrize("old", ["tls-crypt", "tls-auth"])
@pytest.mark.parametrize("options", [(), ("--state", "far")])
def test_both_keys_of_a_server_are_taken_over(bridged, tmp_path, old, options):
    authority = EmbeddedCa.create(tmp_path / "ca")
    material = {
        name: (authority.directory / name).read_bytes()
        for name in ("ca.crt", "server.crt", "server.key", "tls-crypt.key")
    } | {"v2.key": V2_SERVER.serialize().encode()}
    lines = f"ca ca.crt\ncert server.crt\nkey server.key\ndh none\ntls-crypt-v2 v2.key\n{old} tls-crypt.key\n"
    lay_down(material, f"dev tap\nserver-bridge\n{lines}", "s.conf")
    found, _ = imported(bridged, *options, name="s.conf")
    wrap = found.tunnels["s"].wrap
    assert (wrap.mode, wrap.old_clients_mode) == ("tls-crypt-v2", old)
    text = Path(wrap.old_clients_key).read_text() if options else wrap.old_clients_key
    assert (
        parse_static_key(text, "").octets == parse_static_key(material["tls-crypt.key"].decode(), "").octets
    )
    if options:
        assert {Path(path).stat().st_mode & 0o777 for path in (wrap.key, wrap.old_clients_key)} == {0o600}


def test_a_broken_key_of_old_clients_is_refused_with_its_line(bridged, tmp_path):
    authority = EmbeddedCa.create(tmp_path / "ca")
    names = ("ca.crt", "server.crt", "server.key")
    material = {name: (authority.directory / name).read_bytes() for name in names}
    lines = "ca ca.crt\ncert server.crt\nkey server.key\ntls-crypt-v2 v2.key\ntls-auth missing.key 0\n"
    files = material | {"v2.key": V2_SERVER.serialize().encode(), "missing.key": b"no key\n"}
    lay_down(files, f"dev tap\nserver-bridge\n{lines}", "s.conf")
    assert "tls-auth" in refused(bridged, name="s.conf")
