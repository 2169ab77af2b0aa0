"""tls-crypt-v2 client keys that are refused: one stolen profile, without touching the others.

Source: docs/protocol/control.md#2-5. The list is a file in the state folder (`pki/refused_list`). Blocking:
it is read again when it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from bridged.errors import RemoteProtocolError
from bridged.pki.refused_list import parse_refused
from bridged.protocol.keys.client_wrap_key import UnwrappedKey
from bridged.runtime.server.kept_list import KeptList

FILE_OCTETS_MAX: Final = 8 * 1024 * 1024


class RefusedKeys:
    """`path` None: none is refused. `seconds`: keys made longer ago are refused, too (None: however old).

    While the list has never been read whole, all keys are refused: nobody knows who is on it. `report` hears
    of a line that names no key.
    """

    def __init__(
        self, path: Path | None, seconds: float | None = None, report: Callable[[str], None] = lambda _: None
    ) -> None:
        self.path = path
        self._file = None if path is None else KeptList(path, FILE_OCTETS_MAX, "refused_keys")
        self.seconds = seconds
        self._report = report
        self._refused: frozenset[bytes] | None = None if path is not None else frozenset()

    def check(self, key: UnwrappedKey, unix_now: float) -> None:
        """Look at the key of a client that has returned its cookie.

        Raises:
            RemoteProtocolError: `wrap_key_refused`.
        """
        self.refresh()
        if self._refused is None:
            raise RemoteProtocolError("wrap_key_refused", "the list of refused keys cannot be read")
        if self.is_listed(key):
            raise RemoteProtocolError("wrap_key_refused", f"the key {key.identifier} is on the list")
        if self.seconds is None:
            return
        if key.made_at is None or unix_now - key.made_at > self.seconds:
            raise RemoteProtocolError("wrap_key_refused", f"the key {key.identifier} is too old")

    def is_listed(self, key: UnwrappedKey) -> bool:
        """Whether this key is on the list, as of the last `refresh`."""
        return self._refused is not None and bytes.fromhex(key.identifier) in self._refused

    def refresh(self) -> None:
        """Read the list if it has changed. What cannot be read leaves the list as it was."""
        text = self._file.changed() if self._file is not None else None
        if text is None:
            return
        self._refused, problem = parse_refused(text)
        if problem:
            self._report(f"{self.path} {problem}")
