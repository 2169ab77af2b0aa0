"""Secrets that others may read are said, wherever they stand: by a tunnel's plan, at start and by `check`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from bridged.cli.main import main
from bridged.configuration import load
from bridged.configuration.secrets import find_exposed_secrets
from bridged.errors import ConfigurationError
from bridged.pki import EmbeddedCa, tls_crypt_key_path
from bridged.runtime.tunnels.tunnel_credentials import find_ended, find_unusable, plan_tunnel
from bridged.units import UnixSeconds


@pytest.mark.parametrize(("secret", "key"), [("own.key", "tls.key"), ("wrap.key", "wrap.key")])
def test_a_private_file_that_others_may_read_is_warned_of(tmp_path: Path, secret: str, key: str) -> None:
    authority = EmbeddedCa.create(tmp_path)
    identity = authority.issue("site-b", "client", days=10)
    contents = {
        "ca.crt": authority.certificate_pem,
        "own.crt": identity.certificate_pem,
        "own.key": identity.key_pem,
        "wrap.key": tls_crypt_key_path(tmp_path).read_bytes(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    tls = {"ca": "ca.crt", "certificate": "own.crt", "key": "own.key"}
    tunnel = {
        "role": "client",
        "bridge": "br0",
        "remotes": ["192.0.2.1"],
        "tls": tls,
        "wrap": {"mode": "tls-crypt", "key": "wrap.key"},
    }
    path = tmp_path / "client.yaml"
    path.write_text(yaml.safe_dump({"bridges": {"br0": {}}, "tunnels": {"main": tunnel}}))
    warnings: list[str] = []
    plan_tunnel(load(path), "main", tmp_path, warnings.append)
    assert warnings == []
    (tmp_path / secret).chmod(0o640)
    plan_tunnel(load(path), "main", tmp_path, warnings.append)
    assert len(warnings) == 1
    assert f"tunnels.main.{key}" in warnings[0] and "chmod 600" in warnings[0]


INLINE = """\
bridges: {{br0: {{}}}}
metrics: {{bearer_token_file: token}}
tunnels:
  main:
    role: client
    bridge: br0
    remotes: [192.0.2.1]
    tls:
      ca: ca.crt
      certificate: |
{certificate}
      key: |
{key}
    wrap:
      mode: tls-crypt
      key: |
{wrap}
"""


def indented(pem: bytes) -> str:
    return "".join(f"        {line}\n" for line in pem.decode().splitlines())


@pytest.fixture
def inline(tmp_path: Path) -> Path:
    """A configuration with its keys inside, mode 0600, and a token beside it."""
    authority = EmbeddedCa.create(tmp_path)
    identity = authority.issue("site-b", "client")
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    (tmp_path / "token").write_text("x" * 20)
    (tmp_path / "token").chmod(0o600)
    path = tmp_path / "client.yaml"
    path.write_text(
        INLINE.format(
            certificate=indented(identity.certificate_pem),
            key=indented(identity.key_pem),
            wrap=indented(tls_crypt_key_path(tmp_path).read_bytes()),
        )
    )
    path.chmod(0o600)
    return path


def exposed(path: Path) -> list[str]:
    return [".".join(map(str, key)) for key, _ in find_exposed_secrets(load(path))]


def test_keys_inside_a_configuration_that_others_may_read_are_said(inline: Path) -> None:
    assert exposed(inline) == []
    for mode in (0o640, 0o604, 0o660):
        inline.chmod(mode)
        assert exposed(inline) == ["tunnels.main.tls.key", "tunnels.main.wrap.key"]
    warnings: list[str] = []
    plan_tunnel(load(inline), "main", inline.parent, warnings.append)
    assert [text.split(":")[0] for text in warnings] == ["tunnels.main.tls.key", "tunnels.main.wrap.key"]
    assert all("chmod 600" in text and str(inline) in text for text in warnings)


def test_a_token_and_a_certificate_with_its_key_are_secrets_too(inline: Path) -> None:
    folder = inline.parent
    (folder / "token").chmod(0o644)
    assert exposed(inline) == ["metrics.bearer_token_file"]
    (folder / "token").chmod(0o600)
    both = folder / "ca.crt"
    both.write_bytes(both.read_bytes() + (folder / "pki/ca.key").read_bytes())
    both.chmod(0o644)
    assert exposed(inline) == ["tunnels.main.tls.ca"]


def test_the_embedded_ca_s_own_keys_are_looked_at(tmp_path: Path) -> None:
    EmbeddedCa.create(tmp_path / "state").make_wrap_keys()
    path = tmp_path / "server.yaml"
    path.write_text(
        "bridges: {br0: {}}\nstate_directory: state\n"
        "tunnels: {main: {role: server, bridge: br0, tls: {embedded: true}, wrap: {mode: tls-crypt}}}\n"
    )
    assert exposed(path) == []
    for name in ("ca.key", "server.key", "tls-crypt.key", "tls-crypt-v2.key"):
        (tmp_path / "state/pki" / name).chmod(0o640)
    assert exposed(path) == ["tunnels.main.tls.embedded"] * 4


def test_the_key_of_old_clients_is_a_secret_of_the_server(tmp_path: Path) -> None:
    folder = EmbeddedCa.create(tmp_path / "state").directory
    path = tmp_path / "server.yaml"
    path.write_text(
        "bridges: {br0: {}}\nstate_directory: state\ntunnels: {main: {role: server, bridge: br0, "
        "tls: {embedded: true}, wrap: {mode: tls-crypt-v2, old_clients_key: old.key}}}\n"
    )
    (tmp_path / "old.key").write_bytes((folder / "tls-crypt.key").read_bytes())
    (tmp_path / "old.key").chmod(0o600)
    assert exposed(path) == []
    (tmp_path / "old.key").chmod(0o644)
    assert exposed(path) == ["tunnels.main.wrap.old_clients_key"]
    # A relative path begins at the file's folder.
    assert load(path).tunnels["main"].wrap.old_clients_key == str(tmp_path / "old.key")


def test_check_says_it(
    inline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inline.chmod(0o644)
    monkeypatch.setattr(sys, "argv", ["bridged", "check", str(inline)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr().err
    assert "tunnels.main.tls.key: warning: the key is in this file" in said and "chmod 600" in said
    assert "PRIVATE" not in said


def test_join_says_that_others_may_read_the_profile(
    inline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = inline.parent
    monkeypatch.chdir(folder)
    for arguments in (
        ("invite", "site-c", "--state", ".", "--remote", "192.0.2.1", "--output", "c.ovpn"),
        ("join", "c.ovpn", "--bridge", "br0", "--output", "first.yaml"),
    ):
        monkeypatch.setattr(sys, "argv", ["bridged", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        assert "may be read by others" not in capsys.readouterr().err
    (folder / "c.ovpn").chmod(0o644)
    monkeypatch.setattr(sys, "argv", ["bridged", "join", "c.ovpn", "--bridge", "br0", "--output", "b.yaml"])
    with pytest.raises(SystemExit):
        main()
    assert "c.ovpn may be read by others" in capsys.readouterr().err


MATERIALS = {"ca": "ca.crt", "certificate": "own.crt", "key": "own.key"}


def materials(folder: Path, **changed: str) -> Path:
    """A client's configuration with files that fit; `changed` names other files of the folder."""
    authority = EmbeddedCa.create(folder)
    for name in ("own", "other"):
        identity = authority.issue(name, "client", days=10)
        (folder / f"{name}.crt").write_bytes(identity.certificate_pem)
        (folder / f"{name}.key").write_bytes(identity.key_pem)
    (folder / "ca.crt").write_bytes(authority.certificate_pem)
    (folder / "cut.crt").write_bytes(authority.certificate_pem[:200])
    (folder / "wrap.key").write_bytes(tls_crypt_key_path(folder).read_bytes())
    for file in folder.glob("*.key"):
        file.chmod(0o600)
    names = {**MATERIALS, "wrap": "wrap.key", **changed}
    wrap = {"mode": "tls-crypt", "key": names.pop("wrap")}
    tunnel = {"role": "client", "bridge": "br0", "remotes": ["192.0.2.1"], "tls": names, "wrap": wrap}
    path = folder / "client.yaml"
    path.write_text(yaml.safe_dump({"bridges": {"br0": {}}, "tunnels": {"main": tunnel}}))
    return path


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"key": "other.key"}, "does not belong to the certificate"),
        ({"key": "own.crt"}, "not a PEM private key"),
        ({"certificate": "own.key"}, "a private key, not a PEM certificate"),
        ({"ca": "cut.crt"}, "damaged or cut off"),
        ({"crl": "ca.crt"}, "X509 CRL"),
        ({"wrap": "ca.crt"}, "is this a static key file?"),
    ],
)
def test_check_refuses_certificates_and_keys_that_the_start_refuses_and_names_their_file(
    changed: dict[str, str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = materials(tmp_path, **changed)
    with pytest.raises(ConfigurationError) as caught:
        plan_tunnel(load(path), "main", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bridged", "check", str(path)])
    with pytest.raises(SystemExit) as ending:
        main()
    printed = capsys.readouterr()
    assert ending.value.code == 2 and printed.out == ""
    (error,) = [line for line in printed.err.splitlines() if "warning" not in line]
    assert error == str(caught.value)
    (name, file), *_ = changed.items()
    assert reason in error and str(tmp_path / file) in error and "://" not in error
    assert name == "wrap" or f"tunnels.main.tls.{name}" in error


def test_check_takes_good_material_and_leaves_out_what_is_on_another_host(tmp_path: Path) -> None:
    path = materials(tmp_path)
    assert find_unusable(load(path)) == []
    (tmp_path / "own.key").unlink()
    assert find_unusable(load(path)) == []


def test_check_makes_no_ca(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(
        "state_directory: state\nbridges: {br0: {}}\n"
        "tunnels: {main: {role: server, bridge: br0, tls: {embedded: true}, wrap: {mode: tls-crypt}}}\n"
    )
    assert find_unusable(load(path)) == []
    assert not (tmp_path / "state").exists()


def test_check_says_of_a_certificate_that_it_has_ended_or_begins_later(tmp_path: Path) -> None:
    configuration = load(materials(tmp_path))
    (own,) = x509.load_pem_x509_certificates((tmp_path / "own.crt").read_bytes())
    start, end = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
    own_key = ("tunnels", "main", "tls", "certificate")
    assert find_ended(configuration, UnixSeconds(start + 1)) == []
    assert find_ended(configuration, UnixSeconds(end - 1)) == []
    ((path, text),) = find_ended(configuration, UnixSeconds(end + 1))
    assert path == own_key and f"ended on {own.not_valid_after_utc:%Y-%m-%d}" in text
    early = dict(find_ended(configuration, UnixSeconds(start - 7 * 86_400)))
    assert "not valid before" in early[own_key] and "clock" in early[own_key]
