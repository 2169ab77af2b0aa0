"""Remembers a server's clients across a crash of the daemon, to tell them that their sessions are gone.

Source: docs/decisions/0036. Blocking: appends about 40 bytes for each change. Nothing depends on it:
a file that cannot be read or written is ignored, and its content only makes clients ask.
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
"""A thousand clients are told within 1.3 s: about as many handshakes as a machine manages in that time."""
ROUNDS: Final = 4
ROUND_SECONDS: Final = 1.5


class KnownClients:
    """The endpoints of connected clients, in a file; `path` None: nothing is kept.

    Each line is `+ENDPOINT` or `-ENDPOINT`. The file is rewritten when it has LINES_SPARE more lines than
    clients.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._clients: dict[Endpoint, None] = {}
        self._lines = 0
        self._descriptor = -1

    def load(self) -> list[Endpoint]:
        """Return the clients of the previous run, and begin an empty file."""
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
        """A client connected from there."""
        if endpoint not in self._clients and len(self._clients) < CLIENTS_MAX:
            self._clients[endpoint] = None
            self._append(f"+{endpoint}\n")

    def forget(self, endpoint: Endpoint) -> None:
        """The client there disconnected. Harmless where none was."""
        if endpoint in self._clients:
            del self._clients[endpoint]
            self._append(f"-{endpoint}\n")

    def close(self) -> None:
        """Remove the file: an orderly stop says farewell to the clients. Idempotent."""
        self._clients.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self._path is not None:
                with suppress(OSError):
                    self._path.unlink()

    def leave(self) -> None:
        """Keep the file as it is, for a successor. Idempotent."""
        self._clients.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

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
        """Replace the file by one with the present clients."""
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

    `is_back`: whether somebody is connected from there again.
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
        """Begin, and return at once."""
        self._turn(list(endpoints), 0, rounds)

    def close(self) -> None:
        """Stop. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self, endpoints: list[Endpoint], at: int, rounds: int) -> None:
        self._timer = None
        for endpoint in endpoints[at : at + NOTICES_PER_TURN]:
            if not self._is_back(endpoint):
                # Its key ids are not known. Of these two it has at most one.
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
    """Apply one line of the file; ignores lines that are not ours."""
    try:
        endpoint = Endpoint.parse(line[1:])
    except ValueError:
        return
    if line[:1] == "-":
        found.pop(endpoint, None)
    elif line[:1] == "+" and endpoint.is_numeric and len(found) < CLIENTS_MAX:
        found[endpoint] = None
