from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from bridged.addresses import Endpoint, Remote
from bridged.runtime.client import lookup
from bridged.runtime.client.lookup import QUERIES_AT_ONCE, Lookup
from tests.lab.bounds import takes_at_most
from tests.lab.waiting import PATIENCE

HUB = Remote.parse("hub.example:1194")
FOUND = [
    (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::1", 1194, 0, 0)),
    (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 1194)),
    (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 1194)),
]


class Resolver:
    """Stands for getaddrinfo: questions wait until `answer` is set; the first `lost` of them for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lost: int = 0) -> None:
        self.asked = 0
        self.failure: Exception | None = None
        self._lost = lost
        self._monkeypatch = monkeypatch
        self._answer = threading.Event()
        self._end = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self._ask)
        monkeypatch.setattr(lookup, "LOOKUP_SECONDS", 0.05)

    def answer(self) -> None:
        """From now on, and it is waited for."""
        self._monkeypatch.setattr(lookup, "LOOKUP_SECONDS", 5.0 * PATIENCE)
        self._answer.set()

    def end(self) -> None:
        self._end.set()
        self._answer.set()

    def _ask(self, host: str, port: int, family: int, kind: int) -> list[Any]:
        self.asked += 1
        (self._end if self.asked <= self._lost else self._answer).wait(5)
        if self.failure is not None:
            raise self.failure
        return [entry for entry in FOUND if family in (socket.AF_UNSPEC, entry[0])]


def test_a_numeric_remote_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    numeric = Endpoint("192.0.2.9", 1194)
    assert asyncio.run(Lookup().resolve(Remote(numeric))) == [numeric]
    assert resolver.asked == 0


def test_addresses_come_in_order_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch).answer()
    found = asyncio.run(Lookup().resolve(HUB))
    assert [endpoint.host for endpoint in found] == ["2001:db8::1", "192.0.2.1"]


@pytest.mark.parametrize(("family", "host"), [("udp4", "192.0.2.1"), ("udp6", "2001:db8::1")])
def test_only_addresses_of_the_wanted_family_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, family: str, host: str
) -> None:
    Resolver(monkeypatch).answer()
    found = asyncio.run(Lookup().resolve(Remote.parse(f"hub.example:1194/{family}")))
    assert [endpoint.host for endpoint in found] == [host]


def test_a_question_that_was_lost_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, lost=1)

    async def body() -> None:
        names = Lookup()
        with pytest.raises(TimeoutError):
            await names.resolve(HUB)
        resolver.answer()
        assert len(await names.resolve(HUB)) == 2
        names.close()

    asyncio.run(body())
    resolver.end()


def test_a_late_answer_is_taken_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)

    async def body() -> None:
        names = Lookup()
        for _ in range(QUERIES_AT_ONCE + 3):
            with pytest.raises(TimeoutError):
                await names.resolve(HUB)
        assert resolver.asked == QUERIES_AT_ONCE
        resolver.answer()
        assert len(await names.resolve(HUB)) == 2
        names.close()

    asyncio.run(body())


def test_a_refusal_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    resolver.failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    resolver.answer()
    with pytest.raises(OSError, match="Temporary failure"):
        asyncio.run(Lookup().resolve(HUB))


@pytest.mark.measures
def test_the_loop_ends_while_questions_are_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, lost=9)

    async def body() -> None:
        names = Lookup()
        with pytest.raises(TimeoutError):
            await names.resolve(HUB)
        names.close()

    with takes_at_most(2.0, "the end of the loop"):
        asyncio.run(body())
    resolver.end()
