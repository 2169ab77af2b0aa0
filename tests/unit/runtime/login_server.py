"""An authenticator whose clients are made up. Hashes, files and commands are real."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import structlog

from bridged.addresses import Endpoint
from bridged.configuration.access import Authentication
from bridged.protocol.session.events import Authenticated
from bridged.runtime.server.authentication import Authenticator
from tests.lab.waiting import PATIENCE


class Server:
    """An authenticator, and what it decided: handle -> reason, or the token."""

    def __init__(self, settings: Authentication) -> None:
        admission = SimpleNamespace(authentication=settings, verify_command=(), token_key=None)
        self.plan = SimpleNamespace(
            admission=admission, name="t", session=SimpleNamespace(reneg_seconds=3600)
        )
        sessions: Any = SimpleNamespace(plan=self.plan, now=time.monotonic, rearm=lambda: None)
        statistics = SimpleNamespace(authentications=Counter())
        records: Any = SimpleNamespace(statistics=statistics, log=structlog.get_logger())
        self.decided: dict[int, str | None] = {}
        self.of: Any = Authenticator(sessions, records, self)
        self.checks: Any = self.of._checks

    def let_in(self, link: Any, name: str, token: str | None) -> None:
        self.decided[link.handle] = token

    def link(self, handle: int, host: str) -> Any:
        def say(text: str | None) -> None:
            self.decided[handle] = text

        session = SimpleNamespace(
            is_live=True,
            refuse=lambda reason, text, now: say(text),
            accept_login=lambda now, token=None: say(token),
            reject_login=lambda text, now, is_expired: say(text),
        )
        where = Endpoint(host, 1000 + handle)
        return SimpleNamespace(
            handle=handle, endpoint=where, name="n", session=session, terms=None, pump=lambda: None
        )

    def log_in(
        self,
        handle: int,
        password: str,
        host: str = "192.0.2.1",
        name: str = "alice",
        chain: tuple[bytes, ...] = (),
    ) -> Any:
        tls: Any = SimpleNamespace(peer_name="", peer_fingerprint="", peer_chain=chain)
        link = self.link(handle, host)
        self.of.begin(link, Authenticated(tls, name, None, None, password))
        return link


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30 * PATIENCE))
