"""Looks up the addresses of a client's servers repeatedly while it is not connected.

A name server may become reachable late, and its first answer may be wrong. Asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bridged.addresses import Endpoint, Remote
from bridged.files import mark_at
from bridged.runtime.client.lookup import Lookup
from bridged.supervision import SUPERVISOR

AGAIN_SECONDS: Final = 2.0
"""Pause between look-ups in the first minute without a connection."""
LATER_SECONDS: Final = 10.0
"""Pause between look-ups after that."""
FIRST_MINUTE_SECONDS: Final = 60.0
FAILED_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 1.0
RESOLVER_FILES: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
"""A change of one of these triggers a look-up at once."""

OnFound = Callable[[Remote, list[Endpoint]], None]
OnFailed = Callable[[Remote, str], None]


class NameWatch:
    """Looks up each remote that is a name while `is_wanted`; one task for each name.

    `on_found` gets all addresses each time, `on_failed` the reason.
    """

    def __init__(
        self, remotes: Sequence[Remote], on_found: OnFound, on_failed: OnFailed, subject: str
    ) -> None:
        self._names = [remote for remote in dict.fromkeys(remotes) if not remote.server.is_numeric]
        self._on_found = on_found
        self._on_failed = on_failed
        self._subject = subject
        self._lookup = Lookup()
        self._is_wanted = asyncio.Event()
        self._wanted_since = 0.0
        self._hurries: dict[Remote, asyncio.Event] = {name: asyncio.Event() for name in self._names}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for name in self._names:
            self._tasks.append(
                SUPERVISOR.keep(
                    "name_lookup",
                    partial(self._watch, name),
                    f"{self._subject} {name.server.host}",
                    endless=True,
                )
            )

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lookup.close()

    def want(self, is_wanted: bool) -> None:
        """Whether addresses are needed now."""
        if not is_wanted:
            self._is_wanted.clear()
        elif not self._is_wanted.is_set():
            self._wanted_since = asyncio.get_running_loop().time()
            self._is_wanted.set()

    def hurry(self) -> None:
        """Look up again at once: the network has changed."""
        for hurry in self._hurries.values():
            hurry.set()

    async def _watch(self, name: Remote) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._is_wanted.wait()
            pause = (
                AGAIN_SECONDS if loop.time() - self._wanted_since < FIRST_MINUTE_SECONDS else LATER_SECONDS
            )
            try:
                self._on_found(name, await self._lookup.resolve(name))
            except OSError as error:  # TimeoutError is one
                self._on_failed(name, error.strerror or str(error) or "no answer in time")
                pause = FAILED_SECONDS
            await self._pause(self._hurries[name], pause)

    async def _pause(self, hurry: asyncio.Event, seconds: float) -> None:
        """Wait, but no longer than until the resolver's files change."""
        before = _signature()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 and self._is_wanted.is_set() and not hurry.is_set():
            try:
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await hurry.wait()
            except TimeoutError:
                if _signature() != before:
                    break
        hurry.clear()


def _signature() -> tuple[object, ...]:
    """A value that changes with the resolver's files."""
    return tuple(mark_at(Path(path)) for path in RESOLVER_FILES)
