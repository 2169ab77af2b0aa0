"""tls-crypt-v2 client keys that are refused: one stolen profile, without touching the others.

Source: docs/protocol/control.md#2-5. A file in the state folder, a line each: `IDENTIFIER NAME`. Blocking: it
is read again when it changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.client_wrap_key import UnwrappedKey
from bridged.runtime.server.kept_list import KeptList

KEYS_MAX: Final = 65_536
FILE_OCTETS_MAX: Final = 8 * 1024 * 1024


class RefusedKeys:
    """`path` None: none is refused. `seconds`: keys made longer ago are refused, too (None: however old)."""

    def __init__(self, path: Path | None, seconds: float | None = None) -> None:
        self._file = None if path is None else KeptList(path, FILE_OCTETS_MAX, "refused_keys")
        self._seconds = seconds
        self._refused: frozenset[str] = frozenset()

    def check(self, key: UnwrappedKey, unix_now: float) -> None:
        """Look at the key of a client that has returned its cookie.

        Raises:
            RemoteProtocolError: `wrap_key_refused`.
        """
        self._refresh()
        if key.identifier in self._refused:
            raise RemoteProtocolError("wrap_key_refused", f"the key {key.identifier} is on the list")
        if self._seconds is None:
            return
        if key.made_at is None or unix_now - key.made_at > self._seconds:
            raise RemoteProtocolError("wrap_key_refused", f"the key {key.identifier} is too old")

    def _refresh(self) -> None:
        text = self._file.changed() if self._file is not None else None
        if text is None:
            return
        words = (line.split() for line in text.splitlines()[:KEYS_MAX])
        self._refused = frozenset(line[0].lower() for line in words if line)
