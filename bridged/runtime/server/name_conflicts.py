"""Finds two machines that use one certificate and keep ending each other's sessions.

Source: docs/decisions/0045.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridged.addresses import Endpoint
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.units import PeerHandle

WARN_SECONDS: Final = 60.0
"""Pause between two warnings about one name. Every conflict is counted."""
NAMES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class _Replaced:
    old: PeerLink
    by: PeerHandle
    name: str
    before: Endpoint
    now: Endpoint


class NameConflicts:
    """Ends the session of a name that connects from elsewhere, and sees whether anybody acknowledges the end.

    A machine that reconnects has given up its old session and does not acknowledge the end of it. Another
    machine does. `now` gives monotonic seconds.
    """

    def __init__(self, records: PeerRecords, now: Callable[[], float]) -> None:
        self._records = records
        self._now = now
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
        """The name is free again: a peer that had to leave because of this session may return at once."""
        for replaced in self._replaced.values():
            if replaced.by == link.handle:
                replaced.old.session.soften_dismissal()

    def note_ended(self, link: PeerLink) -> None:
        """If the session was replaced and its peer acknowledged that, there are two machines."""
        replaced = self._replaced.pop(link.handle, None)
        if replaced is None or not link.session.dismissal_was_acknowledged:
            return
        self._records.statistics.name_conflicts += 1
        addresses = f"{replaced.before} and {replaced.now}"
        self._records.last_error = f"two machines use the certificate of {replaced.name}: {addresses}"
        now = self._now()
        if now - self._warned.get(replaced.name, -WARN_SECONDS) < WARN_SECONDS:
            return
        while len(self._warned) >= NAMES_MAX:
            del self._warned[next(iter(self._warned))]
        self._warned[replaced.name] = now
        self._records.log.warning(
            "name_conflict",
            peer=replaced.name,
            endpoints=addresses,
            detail="two machines use one certificate and end each other's connection; "
            "make a profile for each of them (`bridged invite`)",
        )
