"""What the kernel refused: left alone for a while, longer after each refusal, so that the rest gets done.

Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from dataclasses import dataclass

from bridged.link_planning.repairs import RepairKey

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 15.0
_DOUBLINGS_MAX = 10


@dataclass(slots=True)
class _Failure:
    count: int
    next_at: float
    reason: str


class Retries:
    """Refused actions by (action name, link)."""

    def __init__(self) -> None:
        self._failures: dict[RepairKey, _Failure] = {}

    def __bool__(self) -> bool:
        return bool(self._failures)

    def note_refused(self, key: RepairKey, reason: str, now: float) -> None:
        known = self._failures.get(key)
        count = known.count + 1 if known is not None else 0
        delay = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(count, _DOUBLINGS_MAX))
        self._failures[key] = _Failure(count, now + delay, reason)

    def note_done(self, key: RepairKey) -> None:
        """Harmless for what was never refused."""
        self._failures.pop(key, None)

    def forget_due(self, now: float) -> None:
        """Forget what was due for another attempt: it turned out not to be needed any more."""
        self._failures = {key: failure for key, failure in self._failures.items() if failure.next_at > now}

    def held_back(self, now: float) -> frozenset[RepairKey]:
        """What must wait."""
        return frozenset(key for key, failure in self._failures.items() if failure.next_at > now)

    def reasons(self) -> list[str]:
        return [failure.reason for failure in self._failures.values()]

    def next_due(self) -> float | None:
        """When the first of them is due; None: nothing waits."""
        return min((failure.next_at for failure in self._failures.values()), default=None)
