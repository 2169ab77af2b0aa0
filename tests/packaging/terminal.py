"""An interactive shell at a pseudo terminal, as a person at the keyboard has it."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from tests.lab.waiting import PATIENCE, NotInTime

SECONDS: Final = 20.0


class Terminal:
    """A context manager. `typed` sends keys; `wait_for` reads until a text appears."""

    def __init__(self, argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._seen = ""
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.execvpe(argv[0], argv, {**os.environ, **environment, "TERM": "dumb", "COLUMNS": "200"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._descriptor)

    def typed(self, keys: str) -> None:
        """Send keys; what came before is forgotten."""
        self._seen = ""
        os.write(self._descriptor, keys.encode())

    def wait_for(self, text: str) -> str:
        """What the terminal showed since the last keys, once `text` is in it.

        Raises:
            NotInTime: with what it showed.
        """
        deadline = time.monotonic() + SECONDS * PATIENCE
        while text not in self._seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                raise NotInTime(f"no {text!r} on the terminal, but: {self._seen!r}")
            self._seen += os.read(self._descriptor, 65536).decode(errors="replace")
        return self._seen
