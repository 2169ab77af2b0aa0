"""Each one-time code counts once, whichever tunnel it is shown to, and also after a restart.

No clock: callers pass `now` (Unix seconds). Source: docs/decisions/0122. Blocking, a few bytes for each code.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

from bridged.protocol.keys.one_time_code import OneTimeSecret
from bridged.runtime.server.kept_lines import KeptLines
from bridged.supervision import SUPERVISOR

USERS_MAX: Final = 65_536
FILE_OCTETS_MAX: Final = 16 * 1024 * 1024
_DUTY: Final = "used_codes"
_KEY_DIGITS: Final = 64


class UsedCodes:
    """The newest step that each user has used, by name and secret. Only right codes take room.

    Each line of the file is `STEP KEY`; KEY tells neither the name nor the secret. `path` None: a restart
    forgets it all.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = KeptLines(path, FILE_OCTETS_MAX)
        self._steps: dict[str, int] = {}
        self._is_loaded = False

    def take(self, username: str, secret: OneTimeSecret, code: str, now: float) -> bool:
        """Whether the code is right, and neither it nor a later one was used."""
        step = secret.step_of(code.strip(), now)
        if step is None:
            return False
        self._load()
        key = _key(username, secret)
        used = self._steps.pop(key, None)
        # A step that no clock shows yet is of a clock that was ahead: it must not lock its user out.
        if used is not None and step <= used <= secret.latest_step(now):
            self._steps[key] = used
            return False
        self._steps[key] = step
        self._forget_oldest()
        self._save(key, step)
        return True

    def _forget_oldest(self) -> None:
        while len(self._steps) > USERS_MAX:
            del self._steps[next(iter(self._steps))]

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            lines = self._file.read()
        except OSError as error:
            SUPERVISOR.note_failure(_DUTY, str(self._file.path), error)
            return
        for line in lines:
            step, _, key = line.partition(" ")
            if step.isascii() and step.isdigit() and len(step) < 20 and len(key) == _KEY_DIGITS:
                self._steps.pop(key, None)
                self._steps[key] = int(step)
        self._forget_oldest()

    def _save(self, key: str, step: int) -> None:
        try:
            self._file.add(_line(key, step), lambda: [_line(*one) for one in self._steps.items()])
        except OSError as error:
            SUPERVISOR.note_failure(_DUTY, str(self._file.path), error)
        else:
            SUPERVISOR.note_done(_DUTY, str(self._file.path))


_of_this_process: Final[dict[Path | None, UsedCodes]] = {}


def used_codes_in(path: Path | None) -> UsedCodes:
    """Those that are kept in this file: the same for all tunnels."""
    return _of_this_process.setdefault(path, UsedCodes(path))


def _key(username: str, secret: OneTimeSecret) -> str:
    return sha256(sha256(secret.secret).digest() + username.encode("utf-8", "replace")).hexdigest()


def _line(key: str, step: int) -> str:
    return f"{step} {key}"
