"""What many logins at once may cost, and what a token is spared. Hashes and files are real."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from bridged.configuration.access import Authentication
from bridged.protocol.session.events import LoginOffered
from bridged.runtime.server import authentication, login_checks, password_file
from bridged.runtime.server.authentication import TOO_OFTEN
from bridged.runtime.server.login_attempts import SOURCE_FAILURES
from bridged.runtime.server.login_checks import BUSY, CHECKS_AT_ONCE, EXPIRED, WRONG, LoginVerdict
from bridged.runtime.server.password_file import hash_password
from tests.lab.waiting import until
from tests.unit.runtime.login_server import Server, run


@pytest.fixture
def by_file(tmp_path: Path) -> Authentication:
    (tmp_path / "users").write_text(f"alice:{hash_password('right')}\n")
    return Authentication(password_file=tmp_path / "users", client_certificate="none")


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("way", ["file", "command"])
def test_passwords_guessed_all_at_once_are_counted_too(
    by_file: Authentication, tmp_path: Path, way: str, host: str
) -> None:
    asked = tmp_path / "asked"
    program = ("/bin/sh", "-c", f"echo >> {asked}; exit 1")
    settings = by_file if way == "file" else Authentication(command=program, client_certificate="none")

    async def scenario() -> None:
        server = Server(settings)
        for number in range(40):
            server.log_in(number, f"guess{number}", host)
        await until(lambda: len(server.decided) == 40)
        at_once = CHECKS_AT_ONCE if way == "file" else login_checks.COMMANDS_AT_ONCE
        verdicts = Counter(server.decided.values())
        assert SOURCE_FAILURES <= verdicts[WRONG] <= SOURCE_FAILURES + at_once
        assert verdicts[TOO_OFTEN] == 40 - verdicts[WRONG]
        if way == "command":
            assert len(asked.read_text()) == verdicts[WRONG]

    run(scenario)


def test_many_right_passwords_behind_one_address_are_all_let_in(by_file: Authentication) -> None:
    async def scenario() -> None:
        server = Server(by_file)
        for number in range(20):
            server.log_in(number, "right")
        # Hashes give way to all else that runs on this machine.
        await until(lambda: len(server.decided) == 20, seconds=25)
        assert all((token or "").startswith("SESS_ID") for token in server.decided.values())

    run(scenario)


def test_sessions_that_end_leave_no_more_hashes_running(
    by_file: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = [0], [0]
    real = password_file.verify_password

    def counted(password: str, phc: str) -> bool:
        running[0] += 1
        most[0] = max(most[0], running[0])
        try:
            time.sleep(0.02)  # so that they overlap on a fast machine, too
            return real(password, phc)
        finally:
            running[0] -= 1

    monkeypatch.setattr(password_file, "verify_password", counted)

    async def scenario() -> None:
        server = Server(by_file)
        for number in range(20):
            link = server.log_in(number, "wrong", f"192.0.2.{number}")
            await asyncio.sleep(0.005)
            link.session.is_live = False
            server.of.forget(link)
        server.log_in(99, "right", "198.51.100.1")
        await until(lambda: 99 in server.decided)
        assert 1 <= most[0] <= CHECKS_AT_ONCE

    run(scenario)


def test_a_token_counts_however_many_wrong_passwords_come_from_its_address(by_file: Authentication) -> None:
    async def scenario() -> None:
        server = Server(by_file)
        link = server.log_in(0, "right")
        await until(lambda: 0 in server.decided)
        token = server.decided.pop(0)
        assert token is not None
        for number in range(1, 10):
            server.log_in(number, "wrong", name="bob")
        await until(lambda: len(server.decided) == 9)
        assert TOO_OFTEN in server.decided.values()
        server.of.renew(link, LoginOffered("alice", token))
        assert (server.decided[0] or "").startswith("SESS_ID")
        server.log_in(50, token)
        assert (server.decided[50] or "").startswith("SESS_ID")
        # Whoever tries tokens of others locks nobody out.
        for number in range(100, 140):
            server.log_in(number, token, "198.51.100.7", "carol")
            assert server.decided[number] == EXPIRED
        assert not server.of._attempts.wait("203.0.113.1", "carol", time.monotonic())

    run(scenario)


def test_decisions_that_come_later_keep_no_other_login_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the slow ones has a program that waits; there are places beside them, in number bounded."""
    monkeypatch.setattr(login_checks, "COMMANDS_AT_ONCE", 2)
    monkeypatch.setattr(login_checks, "DEFERRED_MAX", 3)
    text = (
        f'[ "$username" = slow ] || exit 0\necho >> {tmp_path}/asked\n'
        # It ends with the test's folder, however the test ends.
        f"(while [ -d {tmp_path} ] && [ ! -e {tmp_path}/go ]; do sleep 0.02; done; "
        'printf 1 > "$auth_control_file") &\nexit 2'
    )
    settings = Authentication(command=("/bin/sh", "-c", text), client_certificate="none")

    def asked() -> int:
        return len((tmp_path / "asked").read_text()) if (tmp_path / "asked").exists() else 0

    async def scenario() -> None:
        server = Server(settings)
        for number in range(4):
            server.log_in(number, "x", f"192.0.2.{number}", "slow")
        await until(lambda: asked() == 4)
        server.log_in(50, "x", "198.51.100.1", "quick")
        await until(lambda: 50 in server.decided)
        assert list(server.decided) == [50]
        for number in range(5, 10):
            server.log_in(number, "x", f"192.0.2.{number}", "slow")
        await until(lambda: asked() == 5)
        await asyncio.sleep(0.1)
        assert asked() == 5, "three later, two that keep their places"
        (tmp_path / "go").touch()
        await until(lambda: len(server.decided) == 10)
        assert not server.checks._deferred and server.checks._asking._value == 2

    run(scenario)


def test_a_login_behind_its_verified_certificate_needs_no_second_place(
    by_file: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "WAITING_MAX", 1)

    async def scenario() -> None:
        server = Server(by_file)
        server.plan.admission.verify_command = ("/bin/false",)

        async def verified(chain: object, facts: object) -> LoginVerdict:
            return LoginVerdict(True)

        server.checks.by_certificate = verified
        server.log_in(1, "right", chain=(b"certificate",))
        server.log_in(2, "right", chain=(b"certificate",))
        assert server.decided == {2: BUSY}
        await until(lambda: 1 in server.decided)
        assert (server.decided[1] or "").startswith("SESS_ID")

    run(scenario)


def test_a_machine_without_argon2_calls_no_password_wrong(
    by_file: Authentication, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(password: bytes, phc: str) -> None:
        raise UnsupportedAlgorithm("Argon2id is not supported by this version of OpenSSL")

    monkeypatch.setattr(Argon2id, "verify_phc_encoded", unsupported)

    async def scenario() -> None:
        server = Server(by_file)
        with structlog.testing.capture_logs() as lines:
            for number in range(2 * SOURCE_FAILURES):
                server.log_in(number, "right")
            await until(lambda: len(server.decided) == 2 * SOURCE_FAILURES)
        assert set(server.decided.values()) == {"the server cannot check passwords now"}
        assert [line["event"] for line in lines] == ["login_unchecked"]
        assert "authentication.command" in lines[0]["reason"]

    run(scenario)
