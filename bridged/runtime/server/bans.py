"""Names that may not connect, whatever certificate or password they have: `bridged ban`.

One file in the state folder for all tunnels of a daemon, a line each: `UNTIL NAME`, UNTIL in Unix seconds, or
0 for ever. Blocking: the file is read again when it changes. A ban holds for every spelling of a name
(decision 126).
"""

from __future__ import annotations

import fcntl
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bridged.files import make_private_directory, write_atomic
from bridged.runtime.server.kept_list import KeptList

NAMES_MAX: Final = 16_384
NAME_CHARACTERS_MAX: Final = 200
FILE_OCTETS_MAX: Final = 16 * 1024 * 1024
LAST_SECOND: Final = 253_402_300_799
"""The year 9999: no ban ends later."""


def folded(name: str) -> str:
    """The same for all spellings that a password check may take for one name."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


class Bans:
    """The banned names; `path` None: nobody is banned."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = None if path is None else KeptList(path, FILE_OCTETS_MAX, "bans")
        self._banned: dict[str, tuple[str, float]] = {}
        """By folded name: as it was written, and until when."""

    def until(self, name: str, now: float) -> float | None:
        """Until when this name is banned (0: for ever), as of the last `refresh`; None: it is not."""
        _, until = self._banned.get(folded(name), ("", None))
        return None if until is None or (until and until <= now) else until

    def ban(self, name: str, until: float) -> None:
        """Ban a name until that Unix time; 0: for ever.

        Raises:
            OSError: the file cannot be written.
            ValueError: too many names, or this cannot be one.
        """
        if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
            raise ValueError("cannot be a name")
        with self._changing() as banned:
            if folded(name) not in banned and len(banned) >= NAMES_MAX:
                raise ValueError(f"more than {NAMES_MAX} names are banned")
            banned[folded(name)] = (name, until)

    def lift(self, name: str) -> bool:
        """Let a name connect again; False if it was not banned.

        Raises:
            OSError: the file cannot be written.
        """
        with self._changing() as banned:
            return banned.pop(folded(name), None) is not None

    def all(self, now: float) -> dict[str, float]:
        """Every banned name, and until when."""
        self.refresh()
        return {name: until for name, until in self._banned.values() if not until or until > now}

    def refresh(self) -> None:
        """Read the file if it has changed."""
        text = self._file.changed() if self._file is not None else None
        if text is None:
            return
        lines = (line.partition(" ") for line in text.split("\n")[:NAMES_MAX])
        self._banned = {folded(name): (name, _until(until)) for until, _, name in lines if name}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, tuple[str, float]]]:
        """What is banned, to be changed: nothing counts before it is written, and no other process writes."""
        if self._path is None or self._file is None:
            yield dict(self._banned)
            return
        make_private_directory(self._path.parent)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self.refresh()
            if self._file.trouble is not None:
                # To write now would lift all other bans.
                raise self._file.trouble
            banned = dict(self._banned)
            yield banned
            if banned != self._banned:
                text = "".join(f"{until:.0f} {name}\n" for name, until in banned.values())
                write_atomic(self._path, text.encode())
                self._banned = banned
        finally:
            os.close(folder)


def _until(text: str) -> float:
    """A time that cannot be read keeps its name out for ever: damage lets nobody in."""
    try:
        until = float(text)
    except ValueError:
        return 0.0
    return until if 0 <= until <= LAST_SECOND else 0.0
