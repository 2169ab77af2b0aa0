"""Finds two machines that use one certificate, and so throw each other out again and again.

Source: docs/decisions/0045.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bridged.addresses import Endpoint
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.statistics import TunnelStatistics
from bridged.units import PeerHandle

WARN_SECONDS: Final = 60.0
"""One warning for each name in so long; all are counted."""
NAMES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class _Replaced:
    old: PeerLink
    by: PeerHandle
    name: str
    before: Endpoint
    now: Endpoint


class Rivals:
    """Dismisses sessions whose name comes from elsewhere, and hears whether anybody was still there.

    A machine that connects again has given up its old session and does not acknowledge that session's end.
    Another machine does. `on_conflict` gets one line for the status; `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        log: Any,
        statistics: TunnelStatistics,
        on_conflict: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._log = log
        self._statistics = statistics
        self._on_conflict = on_conflict
        self._clock = clock
        self._replaced: dict[PeerHandle, _Replaced] = {}
        self._warned: dict[str, float] = {}

    def replace(self, old: PeerLink, new: PeerLink) -> None:
        """End `old`, whose name or endpoint `new` has now."""
        detail = f"{new.name} connected again from {new.endpoint}"
        if old.endpoint == new.endpoint or old.name != new.name:
            old.close("replaced", detail, notify=False)
            return
        self._replaced[old.handle] = _Replaced(old, new.handle, old.name, old.endpoint, new.endpoint)
        old.dismiss(
            detail, f"{new.name} connected from {new.endpoint.host}; does another machine use this profile?"
        )

    def note_down(self, link: PeerLink) -> None:
        """Whoever had to go because of it need not stay away: the name is free again."""
        for replaced in self._replaced.values():
            if replaced.by == link.handle:
                replaced.old.session.soften_dismissal()

    def note_ended(self, link: PeerLink) -> None:
        """If it was dismissed and acknowledged that, there are two machines."""
        replaced = self._replaced.pop(link.handle, None)
        if replaced is None or not link.session.dismissal_was_acknowledged:
            return
        self._statistics.name_conflicts += 1
        addresses = f"{replaced.before} and {replaced.now}"
        self._on_conflict(f"two machines use the certificate of {replaced.name}: {addresses}")
        now = self._clock()
        if now - self._warned.get(replaced.name, -WARN_SECONDS) < WARN_SECONDS:
            return
        while len(self._warned) >= NAMES_MAX:
            del self._warned[next(iter(self._warned))]
        self._warned[replaced.name] = now
        self._log.warning(
            "name_conflict",
            peer=replaced.name,
            endpoints=addresses,
            detail="two machines use one certificate and end each other's connection; "
            "make a profile for each of them (`bridged invite`)",
        )
