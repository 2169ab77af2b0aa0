"""A client's login: what it sends, what it keeps, and what it says of files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridged.configuration.access import Login
from bridged.configuration.load import parse
from bridged.configuration.secrets import find_exposed_secrets
from bridged.errors import ConfigurationError, LoginUnavailable
from bridged.protocol.session.login import DynamicChallenge
from bridged.runtime.tunnels.login import PasswordLogin
from tests.lab.pki import write_private

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP\n"


def make(folder: Path, content: str = "alice\nsecret\n", **keys: object) -> PasswordLogin:
    write_private(folder / "login", content)
    settings = Login.model_validate({"password": "login", **keys})
    return PasswordLogin(settings, "tunnels.a", folder)


def test_the_file_has_user_name_and_password_or_the_password_alone(tmp_path: Path) -> None:
    sent = make(tmp_path, "alice\r\n se cret \r\nmore\n").credentials()
    assert (sent.username, sent.password, sent.is_token) == ("alice", " se cret ", False)
    sent = make(tmp_path, "secret", username="bob").credentials()
    assert (sent.username, sent.password) == ("bob", "secret")
    assert "secret" not in repr(sent) and "secret" not in repr(make(tmp_path))


def test_it_is_read_each_time_and_a_missing_file_is_named(tmp_path: Path) -> None:
    login = make(tmp_path)
    write_private(tmp_path / "login", "alice\nother\n")
    assert login.credentials().password == "other"
    (tmp_path / "login").unlink()
    with pytest.raises(LoginUnavailable, match=r"login\.password"):
        login.credentials()


@pytest.mark.parametrize("content", ["", "alice\n", "\nsecret\n", "alice\n" + "x" * 128, "alice\n\0\n"])
def test_what_cannot_be_a_login_is_refused_at_the_start(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigurationError, match=r"tunnels\.a\.login\.password"):
        make(tmp_path, content)


def test_a_token_takes_the_passwords_place_until_it_is_forgotten(tmp_path: Path) -> None:
    login = make(tmp_path)
    assert not login.forget_token()
    login.credentials()
    login.note_token("T", None)
    assert (login.credentials().username, login.credentials().password) == ("alice", "T")
    assert login.credentials().is_token and login.forget_token()
    assert login.credentials().password == "secret"
    login.note_token("T" * 200, None)
    assert not login.credentials().is_token, "one that does not fit is none"


def test_a_challenge_is_answered_once(tmp_path: Path) -> None:
    challenge = DynamicChallenge(True, "state", "alice", "Code?")
    assert not make(tmp_path).note_challenge(challenge)
    login = make(tmp_path, totp_secret=SECRET)
    assert login.note_challenge(challenge)
    assert login.credentials().password == f"CRV1::state::{login.code()}"
    assert login.credentials().password == "secret"


def test_a_static_challenge_joins_password_and_code(tmp_path: Path) -> None:
    login = make(tmp_path, totp_secret=SECRET, challenge="scrv1")
    assert login.credentials().password.startswith("SCRV1:c2VjcmV0:")
    login = make(tmp_path, totp_secret=SECRET, challenge="concat")
    assert login.credentials().password == f"secret{login.code()}"


def test_a_successor_keeps_the_token_only_if_the_login_is_the_same(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.note_token("T", None)
    assert [first.note_refused() for _ in range(4)] == [60.0, 120.0, 240.0, 300.0]
    same = make(tmp_path)
    assert same.succeed(first) and same.credentials().is_token and same.note_refused() == 300.0
    other = make(tmp_path, "alice\nanother\n")
    assert not other.succeed(first) and not other.credentials().is_token
    assert other.note_refused() == 60.0
    assert not make(tmp_path).succeed(None)


def test_files_of_passwords_that_others_may_read_are_named(tmp_path: Path) -> None:
    for name in ("login", "users", "totp"):
        (tmp_path / name).write_text("x\n")
        (tmp_path / name).chmod(0o644)
    text = (
        "bridges: {br0: {}}\ntunnels:\n"
        "  a: {role: client, bridge: br0, remotes: [h], tls: {ca: c}, "
        "login: {password: login, totp_secret: totp}}\n"
        "  b: {role: server, bridge: br0, tls: {embedded: true}, authentication: {password_file: users}}\n"
    )
    found = find_exposed_secrets(parse(text, tmp_path / "bridged.yaml"))
    paths = {path[2:] for path, _ in found}
    assert paths == {
        ("login", "password"),
        ("login", "totp_secret"),
        ("authentication", "password_file"),
    }
