"""Each one-time code counts once, whichever tunnel it is shown to.

No clock: callers pass `now` (Unix seconds).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from bridged.protocol.keys.one_time_code import OneTimeSecret


class UsedCodes:
    """The newest step that each user has used, by name and secret. Only right codes take room."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, bytes], int] = {}

    def take(self, username: str, secret: OneTimeSecret, code: str, now: float) -> bool:
        """Whether the code is right, and neither it nor a later one was used."""
        step = secret.step_of(code.strip(), now)
        if step is None:
            return False
        mark = username, sha256(secret.secret).digest()
        used = self._steps.get(mark)
        # A step that no clock shows yet is of a clock that was ahead: it must not lock its user out.
        if used is not None and step <= used <= secret.latest_step(now):
            return False
        self._steps[mark] = step
        return True


USED_CODES: Final = UsedCodes()
"""Those of this process."""
