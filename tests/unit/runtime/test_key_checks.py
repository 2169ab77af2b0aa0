"""What a client may cause with a key that a program is asked about: real processes, few of them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.client_wrap_key import ServerWrapKey, UnwrappedKey
from bridged.protocol.packets.packet import ControlHeader, Opcode
from bridged.protocol.packets.wrap import OpenedControl
from bridged.protocol.strangers.listener import NewSession
from bridged.runtime.server import key_checks
from bridged.runtime.server.key_checks import ASKED_MAX, CLIENTS_EACH, COMMANDS_AT_ONCE, KeyChecks
from bridged.units import KeyId
from tests.lab.waiting import PATIENCE, until

SERVER = ServerWrapKey(bytes(range(128)))
SCRIPT = """\
import os, sys, time
text = open(os.environ["metadata_file"], "rb").read().decode()
open({asked!r}, "a").write(f"{{os.environ['script_type']}} {{os.environ['metadata_type']}} {{text}}\\n")
time.sleep({seconds})
sys.exit({{"good": 0, "bad": 1}}.get(text.split()[0], 7))
"""


def key_of(metadata: str) -> UnwrappedKey:
    return SERVER.unwrap(SERVER.make_client_key(os.urandom, 0, metadata.encode()).wrapped)


def packet(number: int, message_id: int | None = 1, session: int = 0) -> tuple[NewSession, Endpoint]:
    remote = b"REMOTE" + session.to_bytes(2, "big")
    opened = OpenedControl(ControlHeader(Opcode.CONTROL_V1, KeyId(0), remote), 1, 1, b"")
    return NewSession(b"COOKIE-1", remote, opened, message_id), Endpoint("2001:db8::1", 1000 + number)


class Checks:
    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self.asked = folder / "asked"
        self.taken: list[tuple[Endpoint, int | None]] = []
        self.said: list[str] = []
        script = folder / "check.py"
        script.write_text(SCRIPT.format(asked=str(self.asked), seconds=seconds))
        command = (sys.executable, "-S", str(script))
        self.of = KeyChecks(command, "t", self._take, self.said.append, time.monotonic)

    def _take(self, made: NewSession, source: Endpoint) -> None:
        self.taken.append((source, made.message_id))

    def may_pass(self, key: UnwrappedKey, number: int = 0, message_id: int | None = 1) -> bool:
        made, source = packet(number, message_id)
        return self.of.may_pass(key, made, source, time.monotonic())

    def refusal(self, key: UnwrappedKey, number: int = 0) -> str:
        with pytest.raises(RemoteProtocolError) as error:
            self.may_pass(key, number)
        return error.value.code

    def lines(self) -> list[str]:
        return self.asked.read_text().splitlines() if self.asked.exists() else []


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30 * PATIENCE))


def test_packets_are_held_until_the_verdict_which_then_holds_for_a_while(tmp_path: Path) -> None:
    async def scenario() -> None:
        checks = Checks(tmp_path)
        good, bad = key_of("good ü"), key_of("bad")
        assert (
            not checks.may_pass(good, 1, None)
            and not checks.may_pass(good, 1)
            and not checks.may_pass(bad, 2)
        )
        made, source = packet(1)
        assert checks.of.cookie_of(source, made.remote_session_id) == b"COOKIE-1"
        assert checks.of.cookie_of(source, b"ANOTHER1") is None
        await until(lambda: len(checks.taken) == 3)
        assert {number for _, number in checks.taken} == {None, 1} and len(checks.of) == 0
        assert checks.of.cookie_of(source, made.remote_session_id) is None
        assert all(checks.may_pass(good, number) for number in range(50))
        assert {checks.refusal(bad, number) for number in range(50)} == {"wrap_key_refused"}
        assert sorted(checks.lines()) == ["tls-crypt-v2-verify 0 bad", "tls-crypt-v2-verify 0 good ü"]
        assert checks.said == []

    run(scenario)


def test_a_thief_with_many_keys_starts_few_processes_and_holds_few_packets(tmp_path: Path) -> None:
    async def scenario() -> None:
        checks = Checks(tmp_path, 60.0)
        keys = [key_of(f"good {number}") for number in range(ASKED_MAX)]
        assert not any(checks.may_pass(key) for key in keys)
        assert checks.refusal(key_of("good more")) == "peer_limit"
        assert not any(checks.may_pass(keys[0], number) for number in range(CLIENTS_EACH))
        assert checks.refusal(keys[0], CLIENTS_EACH) == "peer_limit"
        await until(lambda: len(checks.lines()) == COMMANDS_AT_ONCE)
        checks.of.close()
        await asyncio.sleep(0.1)
        assert len(checks.lines()) == COMMANDS_AT_ONCE and checks.taken == []

    run(scenario)


@pytest.mark.parametrize("trouble", ["status", "missing", "slow"])
def test_a_program_that_cannot_answer_lets_nobody_in_and_says_so_once(
    tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_checks, "COMMAND_SECONDS", 0.5 if trouble == "slow" else 10.0)

    async def scenario() -> None:
        checks = Checks(tmp_path, 60.0 if trouble == "slow" else 0.0)
        if trouble == "missing":
            checks.of.command = (str(tmp_path / "missing"),)
        keys = [key_of("ugly 1"), key_of("ugly 2")]
        assert not any(checks.may_pass(key) for key in keys)
        await until(lambda: len(checks.taken) == 2)
        assert {checks.refusal(key) for key in keys} == {"wrap_key_refused"}
        assert len(checks.said) == 1 and "verify command" in checks.said[0]

    run(scenario)


def test_a_key_without_metadata_starts_no_process(tmp_path: Path) -> None:
    key = SERVER.make_client_key(os.urandom, 0).key

    async def scenario() -> None:
        checks = Checks(tmp_path)
        assert checks.refusal(SERVER.unwrap(SERVER.wrap(key, b""))) == "wrap_key_refused"
        assert len(checks.of) == 0

    run(scenario)
