"""Looks up the endpoints of servers, while the name server may come and go.

The system's resolver waits at least five seconds for a lost query, and would notice a name server that
appears meanwhile only then. Instead, each query is repeated every second in a thread of its own; the first
answer counts.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

from bridged.addresses import Endpoint, Family, Remote
from bridged.supervision import SUPERVISOR

LOOKUP_SECONDS: Final = 1.0
"""How long one call waits. Its query continues, and the next call can use the answer."""
QUERIES_AT_ONCE: Final = 6
"""Limit for each name. A query to one name server takes ten seconds at most."""

_FAMILIES: Final[dict[Family, int]] = {
    "udp": socket.AF_UNSPEC,
    "udp4": socket.AF_INET,
    "udp6": socket.AF_INET6,
    "tcp": socket.AF_UNSPEC,
    "tcp4": socket.AF_INET,
    "tcp6": socket.AF_INET6,
}


class Lookup:
    """Looks up names for one event loop. Its threads are daemons: an unanswered query delays no exit."""

    def __init__(self) -> None:
        self._asked: dict[Remote, set[asyncio.Future[list[Endpoint]]]] = {}

    async def resolve(self, remote: Remote) -> list[Endpoint]:
        """All addresses of `remote` of its family, in the resolver's order; a numeric one unchanged.

        Raises:
            OSError: no such name, or the query could not be sent.
            TimeoutError: no answer within LOOKUP_SECONDS.
        """
        if remote.server.is_numeric:
            return [remote.server]
        asked = self._asked.setdefault(remote, set())
        if len(asked) < QUERIES_AT_ONCE:
            asked.add(_ask(remote))
        answered, _ = await asyncio.wait(asked, timeout=LOOKUP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        asked -= answered
        if not answered:
            raise TimeoutError
        failures = [query.exception() for query in answered]
        for query, failure in zip(answered, failures, strict=True):
            if failure is None:
                return query.result()
        assert failures[0] is not None
        raise failures[0]

    def close(self) -> None:
        """Forget all running queries."""
        for asked in self._asked.values():
            for query in asked:
                query.cancel()
        self._asked.clear()


def _ask(remote: Remote) -> asyncio.Future[list[Endpoint]]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Endpoint]] = loop.create_future()
    server, family = remote.server, _FAMILIES[remote.family]

    def settle(found: Any, failure: Exception | None) -> None:
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            endpoints = [Endpoint.of(str(entry[4][0]), int(entry[4][1]), server.transport) for entry in found]
            answer.set_result(list(dict.fromkeys(endpoints)))

    def ask() -> None:
        found: Any = None
        failure: Exception | None = None
        try:
            found = socket.getaddrinfo(server.host, server.port, family, socket.SOCK_DGRAM)
        except Exception as error:
            # Whatever it is: without an answer, the query would count as running forever.
            failure = error if isinstance(error, OSError) else OSError(str(error))
        try:
            loop.call_soon_threadsafe(settle, found, failure)
        except RuntimeError:
            pass  # the loop has ended

    try:
        SUPERVISOR.thread("lookup", ask)
    except RuntimeError as error:  # no thread available counts as no answer
        answer.set_exception(OSError(str(error)))
    return answer
