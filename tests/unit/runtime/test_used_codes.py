"""One-time codes that were used are known after a restart, in a small private file."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from bridged.protocol.keys.one_time_code import OneTimeSecret
from bridged.runtime.server import used_codes
from bridged.runtime.server.used_codes import UsedCodes, used_codes_in

SECRET = OneTimeSecret(b"0123456789abcdef")
NOW = 1_800_000_000.0


def test_a_used_code_counts_no_more_after_a_restart_and_the_next_one_does(tmp_path: Path) -> None:
    path = tmp_path / "used-codes"
    assert UsedCodes(path).take("alice", SECRET, SECRET.code(NOW), NOW)
    later = UsedCodes(path)
    assert not later.take("alice", SECRET, SECRET.code(NOW), NOW)
    assert not later.take("alice", SECRET, SECRET.code(NOW - 30), NOW)
    assert later.take("bob", SECRET, SECRET.code(NOW), NOW)
    assert later.take("alice", SECRET, SECRET.code(NOW + 30), NOW + 30)
    assert not UsedCodes(path).take("alice", SECRET, SECRET.code(NOW + 30), NOW + 30)
    other = OneTimeSecret(b"fedcba9876543210")
    assert UsedCodes(path).take("alice", other, other.code(NOW), NOW), "a new secret has codes of its own"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert "alice" not in text and SECRET.secret.hex() not in text and "0123456789abcdef" not in text


def test_all_tunnels_share_what_is_kept_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "used-codes"
    assert used_codes_in(path).take("alice", SECRET, SECRET.code(NOW), NOW)
    assert not used_codes_in(path).take("alice", SECRET, SECRET.code(NOW), NOW)
    assert used_codes_in(tmp_path / "another").take("alice", SECRET, SECRET.code(NOW), NOW)


def test_users_who_log_in_often_do_not_make_it_grow(tmp_path: Path) -> None:
    path = tmp_path / "used-codes"
    codes = UsedCodes(path)
    for number in range(500):
        assert codes.take("alice", SECRET, SECRET.code(NOW + 30 * number), NOW + 30 * number)
    assert path.read_text().count("\n") < 100
    assert not UsedCodes(path).take("alice", SECRET, SECRET.code(NOW + 30 * 499), NOW + 30 * 499)


def test_the_users_that_are_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_codes, "USERS_MAX", 20)
    path = tmp_path / "used-codes"
    codes = UsedCodes(path)
    for number in range(300):
        assert codes.take(f"u{number}", SECRET, SECRET.code(NOW), NOW)
    later = UsedCodes(path)
    assert not later.take("u299", SECRET, SECRET.code(NOW), NOW)
    assert len(codes._steps) == 20 and len(later._steps) == 20
    assert path.read_text().count("\n") <= 20 + 64


@pytest.mark.parametrize(
    "damage", ["", "x", "5 short\n", f"-1 {'a' * 64}\n", "\0\xff", f"{'9' * 40} {'a' * 64}"]
)
def test_a_damaged_file_costs_no_more_than_its_content(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "used-codes"
    UsedCodes(path).take("alice", SECRET, SECRET.code(NOW), NOW)
    path.write_text(path.read_text() + damage)
    later = UsedCodes(path)
    assert not later.take("alice", SECRET, SECRET.code(NOW), NOW)
    assert later.take("bob", SECRET, SECRET.code(NOW), NOW)
    again = UsedCodes(path)
    for name in ("alice", "bob"):
        assert not again.take(name, SECRET, SECRET.code(NOW), NOW)


def test_a_file_that_cannot_be_written_is_reported_and_costs_no_login(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    codes = UsedCodes(tmp_path / "file" / "used-codes")
    with structlog.testing.capture_logs() as lines:
        assert codes.take("alice", SECRET, SECRET.code(NOW), NOW)
    assert {(line["event"], line["duty"]) for line in lines} == {("duty_failed", "used_codes")}
    assert not codes.take("alice", SECRET, SECRET.code(NOW), NOW)
