"""Names that may not connect, whatever certificate or password they have: `bridged ban`.

One file in the state folder for all tunnels of a daemon, a line each: `UNTIL NAME`, UNTIL in Unix seconds, or
0 for ever. Blocking: the file is read again when it changes. A ban holds for every spelling of a name
(decision 126).
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Final

from bridged.files import write_atomic
from bridged.runtime.server.kept_list import KeptList

NAMES_MAX: Final = 16_384
FILE_OCTETS_MAX: Final = 4 * 1024 * 1024


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
        if not name or "\n" in name or not name.isprintable():
            raise ValueError("cannot be a name")
        self.refresh()
        if folded(name) not in self._banned and len(self._banned) >= NAMES_MAX:
            raise ValueError(f"more than {NAMES_MAX} names are banned")
        self._banned[folded(name)] = (name, until)
        self._save()

    def lift(self, name: str) -> bool:
        """Let a name connect again; False if it was not banned.

        Raises:
            OSError: the file cannot be written.
        """
        self.refresh()
        if self._banned.pop(folded(name), None) is None:
            return False
        self._save()
        return True

    def all(self, now: float) -> dict[str, float]:
        """Every banned name, and until when."""
        self.refresh()
        return {name: until for name, until in self._banned.values() if not until or until > now}

    def refresh(self) -> None:
        """Read the file if it has changed."""
        text = self._file.changed() if self._file is not None else None
        if text is None:
            return
        self._banned = {}
        for line in text.splitlines()[:NAMES_MAX]:
            until, _, name = line.partition(" ")
            with suppress(ValueError):
                if name:
                    self._banned[folded(name)] = (name, float(until))

    def _save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = "".join(f"{until:.0f} {name}\n" for name, until in self._banned.values())
        write_atomic(self._path, text.encode())
