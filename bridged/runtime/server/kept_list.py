"""A list in the state folder that keeps clients out, and that must not be ignored unseen."""

from __future__ import annotations

from pathlib import Path

from bridged.files import FollowedFile, closed_to_user, user_name
from bridged.supervision import SUPERVISOR


class KeptList:
    """A followed file. Its trouble is reported as `duty`, and what was read before stays."""

    def __init__(self, path: Path, limit: int, duty: str) -> None:
        self._path = path
        self._file = FollowedFile(path, limit)
        self._duty = duty

    @property
    def trouble(self) -> OSError | None:
        """Why the last look could not read it; None: it could, or there is no file."""
        return self._file.trouble

    def changed(self) -> str | None:
        """The text; None: it has not changed, or cannot be read now. Blocking."""
        text = self._file.changed()
        trouble = self._file.trouble
        if trouble is None:
            SUPERVISOR.note_done(self._duty, str(self._path))
            return text
        reason = trouble.strerror or str(trouble)
        if isinstance(trouble, PermissionError):
            reason = f"{closed_to_user(self._path)}; as root: `chown {user_name()}: {self._path}`"
        SUPERVISOR.note_failure(self._duty, str(self._path), OSError(reason))
        return None
