"""Where a server's clients were, over a crash of the daemon: they are told that their sessions are gone.

Source: docs/decisions/0036. Blocking, some 40 octets for each change, written by appending. Nothing
depends on it: a file that cannot be read or written is as none, and what it says only makes clients ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from bridged.addresses import Endpoint
from bridged.protocol.packets.unknown_session import KEY_IDS, serialize_notice
from bridged.supervision import SUPERVISOR, Timer

CLIENTS_MAX: Final = 16_384
FILE_OCTETS_MAX: Final = 4 * 1024 * 1024
LINES_SPARE: Final = 1024
NOTICES_PER_TURN: Final = 32
TURN_SECONDS: Final = 0.04
"""A thousand clients are told within 1.3 s: about what a machine shakes hands with meanwhile."""
ROUNDS: Final = 4
ROUND_SECONDS: Final = 1.5


class KnownClients:
    """The endpoints of the clients that are connected, in a file; `path` None: they are not kept.

    Each line is `+ENDPOINT` or `-ENDPOINT`. Written anew once there are LINES_SPARE more lines than clients.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._clients: dict[Endpoint, None] = {}
        self._lines = 0
        self._descriptor = -1

    def load(self) -> list[Endpoint]:
        """Those of the run before, and begin an empty file."""
        if self._path is None:
            return []
        found: dict[Endpoint, None] = {}
        with suppress(OSError, ValueError):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as stream:
                text = stream.read(FILE_OCTETS_MAX).decode("ascii", "replace")
            for line in text.splitlines():
                _note(found, line)
        self._rewrite()
        return list(found)

    def note(self, endpoint: Endpoint) -> None:
        """A client is connected from there."""
        if endpoint not in self._clients and len(self._clients) < CLIENTS_MAX:
            self._clients[endpoint] = None
            self._append(f"+{endpoint}\n")

    def forget(self, endpoint: Endpoint) -> None:
        """It is not any more; harmless where it was not."""
        if endpoint in self._clients:
            del self._clients[endpoint]
            self._append(f"-{endpoint}\n")

    def close(self) -> None:
        """A stop in good order tells the clients itself. Idempotent."""
        self._clients.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self._path is not None:
                with suppress(OSError):
                    self._path.unlink()

    def _append(self, line: str) -> None:
        if self._descriptor < 0:
            return
        self._lines += 1
        if self._lines > len(self._clients) + LINES_SPARE:
            self._rewrite()
            return
        with suppress(OSError):
            os.write(self._descriptor, line.encode("ascii"))

    def _rewrite(self) -> None:
        """A file of its own takes the place of the old one."""
        assert self._path is not None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(draft, flags, 0o600)
            try:
                os.write(descriptor, "".join(f"+{endpoint}\n" for endpoint in self._clients).encode("ascii"))
                draft.replace(self._path)
            except OSError:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        self._lines = len(self._clients)


class Notices:
    """Tells endpoints that their sessions are gone: a few in each turn, all of them ROUNDS times.

    `is_back` says whether somebody is connected from there already.
    """

    def __init__(
        self,
        send: Callable[[bytes, Endpoint], None],
        is_back: Callable[[Endpoint], bool],
        subject: str,
    ) -> None:
        self._send = send
        self._is_back = is_back
        self._subject = subject
        self._timer: Timer | None = None

    def tell(self, endpoints: Iterable[Endpoint], rounds: int = ROUNDS) -> None:
        """Begin to; returns at once."""
        self._turn(list(endpoints), 0, rounds)

    def close(self) -> None:
        """Tell nobody any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self, endpoints: list[Endpoint], at: int, rounds: int) -> None:
        self._timer = None
        for endpoint in endpoints[at : at + NOTICES_PER_TURN]:
            if not self._is_back(endpoint):
                # Which keys it has is not known: of these two it has one at most.
                for key_id in (0, KEY_IDS // 2):
                    self._send(serialize_notice(key_id), endpoint)
        at += NOTICES_PER_TURN
        seconds = TURN_SECONDS
        if at >= len(endpoints):
            at, rounds, seconds = 0, rounds - 1, ROUND_SECONDS
            endpoints = [endpoint for endpoint in endpoints if not self._is_back(endpoint)]
        if rounds > 0 and endpoints:
            step = partial(self._turn, endpoints, at, rounds)
            self._timer = SUPERVISOR.after("notices", seconds, step, self._subject)


def _note(found: dict[Endpoint, None], line: str) -> None:
    """One line of the file; what is no line of ours is passed over."""
    try:
        endpoint = Endpoint.parse(line[1:])
    except ValueError:
        return
    if line[:1] == "-":
        found.pop(endpoint, None)
    elif line[:1] == "+" and endpoint.is_numeric and len(found) < CLIENTS_MAX:
        found[endpoint] = None
