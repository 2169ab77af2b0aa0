"""A private file of lines in the state folder: new ones are appended, and now and then all are written again.

Blocking, a few bytes for each line. Whole lines only count: one that was cut off belongs to its reader.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from bridged.files import make_private_directory, open_to_read, write_atomic

LEAST_APPENDED: Final = 64
"""Lines appended before the whole file is written again, at least; else a quarter of those that it has."""


class KeptLines:
    """Where lines with the same meaning meet, the later one counts. `path` None: nothing is kept.

    `octets_max`: how much of it is read.
    """

    def __init__(self, path: Path | None, octets_max: int) -> None:
        self.path = path
        self._octets_max = octets_max
        self._room = 0
        """How many lines may still be appended."""

    def read(self) -> list[str]:
        """All lines; none if there is no file.

        Raises:
            OSError: it cannot be read.
        """
        if self.path is None:
            return []
        try:
            with open_to_read(self.path) as stream:
                content = stream.read(self._octets_max)
        except FileNotFoundError:
            return []
        return content.decode("utf-8", "replace").splitlines()

    def add(self, line: str, everything: Callable[[], Iterable[str]]) -> None:
        """Keep one more line. `everything` has all that count, this one included.

        Raises:
            OSError: it cannot be written.
        """
        if self.path is None:
            return
        if self._room > 0 and self._append(f"{line}\n".encode()):
            self._room -= 1
            return
        make_private_directory(self.path.parent)
        lines = list(everything())
        write_atomic(self.path, "".join(f"{one}\n" for one in lines).encode(), durable=False)
        self._room = max(LEAST_APPENDED, len(lines) // 4)

    def _append(self, content: bytes) -> bool:
        """Whether all of it was added; else the file may end in the middle of a line, or is gone."""
        assert self.path is not None
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags)
        except OSError:
            return False
        try:
            return os.write(descriptor, content) == len(content)
        except OSError:
            return False
        finally:
            os.close(descriptor)
