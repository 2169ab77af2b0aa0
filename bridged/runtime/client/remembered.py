"""Remembers which server worked last, across restarts of the daemon.

Blocking, a few hundred bytes. Nothing depends on it: a file that cannot be read or written is ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from bridged.addresses import Remote
from bridged.runtime.client.remote_order import Candidate

FILE_OCTETS_MAX: Final = 65536


class RememberedServer:
    """A file under the state folder; `path` None: nothing is remembered.

    It is valid only for the list of remotes that it was written for.
    """

    def __init__(self, path: Path | None, remotes: Sequence[Remote]) -> None:
        self._path = path
        self._remotes = [str(remote) for remote in remotes]
        self._written: Candidate | None = None

    def load(self) -> Candidate | None:
        """The server that worked last, if known and still one of the remotes."""
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as stream:
                found = json.loads(stream.read(FILE_OCTETS_MAX))
            if found["remotes"] != self._remotes or found["remote"] not in self._remotes:
                return None
            endpoint = Remote.parse(found["endpoint"]).server
            self._written = Candidate(Remote.parse(found["remote"]), endpoint)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return self._written if endpoint.is_numeric else None

    def save(self, worked: Candidate) -> None:
        """Remember this server; replaces the whole file."""
        if self._path is None or worked == self._written:
            return
        text = json.dumps(
            {"remotes": self._remotes, "remote": str(worked.remote), "endpoint": str(worked.endpoint)}
        )
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(draft, flags, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
            draft.replace(self._path)
            self._written = worked
