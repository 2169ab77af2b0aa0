"""Tokens, the limits of guessing, and the password file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridged.cli.main import app
from bridged.errors import ConfigurationError
from bridged.runtime.server.auth_token import TokenMint, TokenRules, is_token
from bridged.runtime.server.login_attempts import KEYS_MAX, LoginAttempts
from bridged.runtime.server.password_file import UserFile, hash_password, parse_users

RULES = TokenRules(lifetime=1000.0, idle=100.0)
A08_TOKEN = "SESS_ID_AT_IA2GljFP53hniqXZAAAAAGsE+UYAAAAAawT5RqYMzLCF4Tw45PgeiETkfAWuQtpCmtib9YrkesCrUrFf"
"""What a real OpenVPN server gave (tests/vectors/a08-userpass-authtoken)."""


def test_a_token_belongs_to_its_user_and_runs_out() -> None:
    mint = TokenMint(b"k" * 32)
    token = mint.make("alice", b"i" * 12, 5000.0)
    assert is_token(token) and len(token) == len(A08_TOKEN)
    assert mint.judge("alice", token, RULES, 5050.0) == "good"
    assert mint.judge("bob", token, RULES, 5050.0) == "wrong"
    assert TokenMint(b"l" * 32).judge("alice", token, RULES, 5050.0) == "wrong"
    assert mint.judge("alice", token, RULES, 5101.0) == "expired", "not renewed in time"
    later = mint.renew("alice", token, 5090.0)
    assert mint.judge("alice", later, RULES, 5150.0) == "good"
    assert mint.judge("alice", mint.renew("alice", token, 6000.0), RULES, 6001.0) == "expired", "too old"
    assert mint.judge("alice", later, RULES, 100.0) == "expired", "from the future"
    assert mint.judge("alice", token, TokenRules(0.0, 0.0), 1e9) == "good"


@pytest.mark.parametrize("position", [11, 30, 60, 90])
def test_a_changed_token_is_none(position: int) -> None:
    mint = TokenMint(b"k" * 32)
    token = mint.make("alice", bytes(12), 5000.0)
    other = "A" if token[position] != "A" else "B"
    assert mint.judge("alice", token[:position] + other + token[position + 1 :], RULES, 5000.0) == "wrong"
    assert mint.judge("alice", A08_TOKEN, RULES, 5000.0) == "wrong"
    assert mint.judge("alice", "SESS_ID_AT_ä", RULES, 5000.0) == "wrong"


def test_a_source_may_fail_five_times_and_then_once_in_twelve_seconds() -> None:
    attempts = LoginAttempts()
    for number in range(5):
        assert attempts.wait("192.0.2.1", f"user{number}", 0.0) == 0.0
        attempts.note_failure("192.0.2.1", f"user{number}", 0.0)
    assert attempts.wait("192.0.2.1", "anybody", 0.0) == 12.0
    assert attempts.wait("192.0.2.1", "anybody", 12.0) == 0.0
    assert attempts.wait("192.0.2.2", "anybody", 0.0) == 0.0
    for number in range(5):
        attempts.note_failure(f"2001:db8::{number}", "x", 0.0)
    assert attempts.wait("2001:db8::ffff", "y", 0.0) > 0.0, "one customer has the whole network"


def test_a_name_under_attack_stays_open_to_where_it_has_been() -> None:
    attempts = LoginAttempts()
    attempts.note_success("192.0.2.1", "alice")
    for number in range(20):
        attempts.note_failure(f"198.51.100.{number}", "alice", 0.0)
    assert attempts.wait("203.0.113.1", "alice", 0.0) > 0.0
    assert attempts.wait("192.0.2.1", "alice", 0.0) == 0.0


def test_what_attackers_leave_behind_is_bounded() -> None:
    attempts = LoginAttempts()
    for number in range(KEYS_MAX + 100):
        attempts.note_failure(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", str(number), 0.0)
    assert len(attempts._names._full_until) == len(attempts._sources._full_until) == KEYS_MAX


def run(folder: Path, *arguments: str, password: str = "pässword") -> str:
    result = CliRunner().invoke(app, ["password", str(folder / "users"), *arguments], input=password + "\n")
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_adds_changes_and_removes_users_and_the_file_counts_at_once(tmp_path: Path) -> None:
    file = tmp_path / "users"
    run(tmp_path, "alice")
    file.write_text("# by hand\n" + file.read_text())
    users = UserFile(file)
    assert users.verify("alice", "pässword") and not users.verify("alice", "wrong")
    assert not users.verify("bob", "pässword")
    said = run(tmp_path, "bob", "--totp")
    assert "otpauth://totp/" in said and "pässword" not in said
    assert users.find("bob").secret is not None
    secret = users.find("bob").secret
    run(tmp_path, "bob", password="other")
    assert users.verify("bob", "other") and users.find("bob").secret == secret, "the secret stays"
    run(tmp_path, "alice", "--delete")
    assert users.find("alice") is None and file.read_text().startswith("# by hand\n")
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert "pässword" not in file.read_text() and "pässword" not in repr(users.users())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("alice", "no Argon2 hash"),
        ("alice:secret", "no Argon2 hash"),
        ("alice:$argon2id$v=19$m=99999999,t=2,p=1$AAAA$AAAA", "no Argon2 hash"),
        (":x", "no user name"),
        ("a" * 65 + ":x", "no user name"),
    ],
)
def test_a_wrong_line_is_named_by_its_number_and_not_repeated(line: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        parse_users(f"\n{line}\n".encode(), Path("users"))
    assert caught.value.line == 2 and "secret" not in str(caught.value)


def test_two_lines_of_one_name_are_a_mistake() -> None:
    line = f"alice:{hash_password('x')}\n"
    with pytest.raises(ConfigurationError, match="line above"):
        parse_users((line + line).encode(), Path("users"))
