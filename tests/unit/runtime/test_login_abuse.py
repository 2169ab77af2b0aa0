"""Logins of those who mean harm: they leave before the verdict, provoke failures, and use codes twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridged.configuration.access import Authentication
from bridged.protocol.keys.one_time_code import OneTimeSecret
from bridged.runtime.server import login_checks
from bridged.runtime.server.auth_command import Question, ask_command
from bridged.runtime.server.authentication import TOO_OFTEN
from bridged.runtime.server.login_attempts import SOURCE_FAILURES
from bridged.runtime.server.login_checks import BUSY, CHECKS_AT_ONCE, COMMANDS_AT_ONCE
from bridged.runtime.server.password_file import hash_password
from bridged.runtime.server.used_codes import UsedCodes
from tests.lab.waiting import until
from tests.unit.runtime.login_server import Server, run

UNCHECKED = "the server cannot check passwords now"


def shell(text: str, seconds: float = 30) -> Authentication:
    """Logins that a command of this text decides."""
    return Authentication(command=("/bin/sh", "-c", text), client_certificate="none", command_seconds=seconds)


@pytest.mark.parametrize("way", ["file", "command"])
def test_who_leaves_before_the_verdict_has_tried_a_password_nevertheless(tmp_path: Path, way: str) -> None:
    users, asked = tmp_path / "users", tmp_path / "asked"
    users.write_text(f"alice:{hash_password('right')}\n")
    settings = shell(f"echo >> {asked}; exec sleep 20")
    if way == "file":
        settings = Authentication(password_file=users, client_certificate="none")

    async def scenario() -> None:
        server = Server(settings)

        def is_asked() -> bool:
            return asked.exists() or server.checks._hashing._value < CHECKS_AT_ONCE

        for number in range(SOURCE_FAILURES):
            asked.unlink(missing_ok=True)
            link = server.log_in(number, "wrong")
            await until(lambda number=number: is_asked() or number in server.decided)
            link.session.is_live = False
            server.of.forget(link)
            await until(lambda: server.checks._hashing._value == CHECKS_AT_ONCE)
            await until(lambda: server.checks._asking._value == COMMANDS_AT_ONCE)
        server.log_in(99, "wrong")
        assert server.decided[99] == TOO_OFTEN

    run(scenario)


@pytest.mark.parametrize("ending", ["exit 255", "kill -9 $$", "sleep 20"])
def test_a_command_that_ends_or_hangs_without_an_answer_is_no_way_to_guess_without_end(ending: str) -> None:
    async def scenario() -> None:
        server = Server(shell(ending, seconds=1))
        for number in range(SOURCE_FAILURES):
            server.log_in(number, "wrong")
        await until(lambda: len(server.decided) == SOURCE_FAILURES)
        assert set(server.decided.values()) == {UNCHECKED}
        server.log_in(99, "wrong")
        assert server.decided[99] == TOO_OFTEN

    run(scenario)


def test_a_command_that_cannot_be_run_slows_nobody_down() -> None:
    async def scenario() -> None:
        server = Server(Authentication(command=("/nowhere",), client_certificate="none"))
        for number in range(2 * SOURCE_FAILURES):
            server.log_in(number, "right")
        await until(lambda: len(server.decided) == 2 * SOURCE_FAILURES)
        assert set(server.decided.values()) == {UNCHECKED}

    run(scenario)


def test_one_address_cannot_take_all_places_of_decisions_that_come_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(login_checks, "DEFERRED_BY_SOURCE", 3)

    async def scenario() -> None:
        server = Server(shell("exit 2"))
        for host in range(2):
            for number in range(5):
                server.log_in(10 * host + number, "x", f"192.0.2.{host}")
        await until(lambda: len(server.decided) == 4)
        assert set(server.decided.values()) == {BUSY} and server.checks._deferred.total() == 6
        server.of.close()
        await until(lambda: not server.checks._deferred)

    run(scenario)


def test_a_pipe_in_the_place_of_an_answer_does_not_stop_the_loop() -> None:
    command = ("/bin/sh", "-c", "mkfifo $auth_control_file $auth_failed_reason_file; exit 2")

    async def scenario() -> None:
        answer = await ask_command(command, "file", Question("alice", "x"), 1.0, lambda: True)
        assert answer.is_failure and "no answer" in answer.reason

    run(scenario)


def test_the_processes_of_a_command_are_gone_with_the_session(tmp_path: Path) -> None:
    text = f"(echo $$ > {tmp_path}/pid; while [ -d {tmp_path} ]; do sleep 0.1; done) & wait"

    async def scenario() -> None:
        server = Server(shell(text))
        link = server.log_in(1, "x")
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        pid = (tmp_path / "pid").read_text().strip()
        server.of.forget(link)
        await until(lambda: not Path(f"/proc/{pid}").exists() and not server.of._tasks)
        await asyncio.sleep(0)

    run(scenario)


def test_a_code_counts_once_in_all_tunnels_and_a_clock_that_was_ahead_locks_nobody_out() -> None:
    codes, secret = UsedCodes(), OneTimeSecret(b"0123456789abcdef")
    now = 1_800_000_000.0
    assert codes.take("alice", secret, secret.code(now), now)
    assert not codes.take("alice", secret, secret.code(now), now + 30), "it was used"
    assert codes.take("bob", secret, secret.code(now), now), "another user's"
    assert not codes.take("alice", secret, secret.code(now - 30), now), "older than one that was used"
    assert codes.take("alice", secret, secret.code(now + 1e6), now + 1e6)
    assert codes.take("alice", secret, secret.code(now + 60), now + 60), "the clock was set back"
    assert not codes.take("alice", secret, secret.code(now + 60), now + 60)
