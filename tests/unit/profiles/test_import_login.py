"""`auth-user-pass` and `static-challenge` of a client's profile."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bridged.cli.main import app
from bridged.profiles import parse_profile

LINES = "client\ndev tap\nremote vpn.example.net 1194\nremote-cert-tls server\n"


def configured(tmp_path: Path, text: str, *options: str) -> tuple[dict, str]:
    """The tunnel of the configuration that `bridged import` makes, and what it says."""
    file, output = tmp_path / "office.ovpn", tmp_path / "office.yaml"
    file.write_text(text)
    result = CliRunner().invoke(app, ["import", str(file), "--output", str(output), *options])
    assert result.exit_code == 0, result.output
    return yaml.safe_load(output.read_text())["tunnels"]["office"], result.output


@pytest.fixture
def trust(authority_texts: dict[str, str]) -> str:
    return "".join(f"<{name}>\n{text}</{name}>\n" for name, text in authority_texts.items())


@pytest.fixture
def authority_texts() -> dict[str, str]:
    from tests.lab.pki import Authority

    authority = Authority()
    own = authority.issue("client", "client")
    return {"ca": authority.certificate, "cert": own.certificate, "key": own.key}


def test_a_block_becomes_a_login_with_user_name_and_password(tmp_path: Path, trust: str) -> None:
    text = LINES + trust + "<auth-user-pass>\nalice\n pass word \n</auth-user-pass>\n"
    tunnel, said = configured(tmp_path, text)
    assert tunnel["login"] == {"password": "alice\n pass word \n"}
    assert "pass word" not in said
    assert (tmp_path / "office.yaml").stat().st_mode & 0o077 == 0


def test_a_named_file_is_read_and_with_a_state_folder_kept_apart(tmp_path: Path, trust: str) -> None:
    (tmp_path / "up.txt").write_text("alice\r\nsecret\r\n")
    text = LINES + trust + "auth-user-pass up.txt\n"
    tunnel, _ = configured(tmp_path, text, "--state", str(tmp_path / "state"))
    kept = Path(tunnel["login"]["password"])
    assert kept.read_text() == "alice\nsecret\n" and kept.stat().st_mode & 0o077 == 0


def test_without_a_file_the_import_says_which_one_to_write(tmp_path: Path, trust: str) -> None:
    tunnel, said = configured(
        tmp_path, LINES + trust + "auth-user-pass\nauth-nocache\nauth-retry nointeract\n"
    )
    assert tunnel["login"] == {"password": "office.login"}
    assert "login.password" in said and "0600" in said


def test_a_file_with_the_user_name_alone_is_named_too(tmp_path: Path, trust: str) -> None:
    (tmp_path / "up.txt").write_text("alice\n")
    _, said = configured(tmp_path, LINES + trust + "auth-user-pass up.txt\n")
    assert "'alice' in its first line" in said


def test_a_static_challenge_asks_for_the_secret_of_its_codes(tmp_path: Path, trust: str) -> None:
    text = LINES + trust + 'auth-user-pass\nstatic-challenge "Your code?" 1\n'
    tunnel, said = configured(tmp_path, text)
    assert tunnel["login"]["challenge"] == "scrv1" and tunnel["login"]["totp_secret"] == "office.totp"
    assert "login.totp_secret" in said


def test_a_profile_with_a_password_needs_no_certificate(
    tmp_path: Path, authority_texts: dict[str, str]
) -> None:
    text = LINES + f"<ca>\n{authority_texts['ca']}</ca>\nauth-user-pass\n"
    tunnel, _ = configured(tmp_path, text)
    assert "certificate" not in tunnel["tls"] and "key" not in tunnel["tls"]


def test_a_certificate_without_its_key_is_still_a_mistake() -> None:
    text = LINES + "ca ca.crt\ncert client.crt\nauth-user-pass\n"
    with pytest.raises(Exception, match="private key"):
        parse_profile(text, "office.ovpn")
