"""When to repair what somebody undid: at once the first times, then after growing pauses.

Otherwise two programs with different wishes for one link would undo each other's work forever.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bridged.link_planning.actions import (
    Action,
    AddAddress,
    AddRoute,
    Attach,
    DeleteAddress,
    DeleteRoute,
    RenewAddress,
)
from bridged.link_planning.links import HostLinks

FREE_REPAIRS = 4
"""Repairs of one thing without a pause."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 60.0
FORGIVEN_AFTER_SECONDS = 60.0
RECORDS_LIMIT = 10_000
"""Things that are counted: addresses and routes of a busy host come and go for years."""

RepairKey = tuple[str, str]
"""Action name and link."""


@dataclass(slots=True)
class _Record:
    place: tuple[int, int]
    repairs: int = 0
    last: float = float("-inf")

    def due_at(self) -> float:
        if self.repairs < FREE_REPAIRS:
            return float("-inf")
        return self.last + self.delay()

    def delay(self) -> float:
        over = max(0, min(16, self.repairs - FREE_REPAIRS))
        return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0**over)


class Repairs:
    """Decides what counts as a repair: what was done before, or what a link needs that had been as wished.

    A link that vanished and came back (another index), or whose bridge did, is repaired at once: nobody
    fights over it. `counts` is by action name.
    """

    def __init__(self) -> None:
        self._records: dict[tuple[str, str, object], _Record] = {}
        self._settled: dict[str, int] = {}
        self._bridges_made = 0
        self.counts: Counter[str] = Counter()

    def settle(self, observed: HostLinks) -> None:
        """Nothing is left to do: any further change to these links is a repair."""
        self._settled = {link.name: link.index for link in observed.links}

    def held_back(self, now: float) -> frozenset[RepairKey]:
        """What must wait."""
        return frozenset(key[:2] for key, record in self._records.items() if record.due_at() > now)

    def next_due(self, now: float) -> float | None:
        """When the first of what waits may be done; None: nothing waits."""
        waiting = [due for record in self._records.values() if (due := record.due_at()) > now]
        return min(waiting, default=None)

    def note(self, actions: Sequence[Action], observed: HostLinks, now: float) -> Counter[str]:
        """Record `actions`, planned from `observed` and done. Returns the repairs among them, by name."""
        repaired: Counter[str] = Counter()
        bridges = self._bridges(actions, observed)
        for name, link_name, what in dict.fromkeys(map(_thing, actions)):
            if not name:
                continue
            link = observed.link(link_name)
            index = link.index if link is not None else 0
            place = index, bridges.get(link_name, 0)
            record = self._records.get((name, link_name, what))
            if record is None:
                record = _Record(place)
                if len(self._records) < RECORDS_LIMIT:
                    self._records[name, link_name, what] = record
                if what is not None or index == 0 or self._settled.get(link_name) != index:
                    continue
            repaired[name] += 1
            if now - record.last > max(FORGIVEN_AFTER_SECONDS, 2 * record.delay()):
                record.repairs = 0
            if record.place == place:
                record.repairs += 1
            record.place = place
            record.last = now
        self.counts += repaired
        return repaired

    def _bridges(self, actions: Sequence[Action], observed: HostLinks) -> dict[str, int]:
        """Link that joins a bridge -> index of the bridge; negative: a bridge that is being made."""
        found: dict[str, int] = {}
        for action in actions:
            if isinstance(action, Attach):
                bridge = observed.link(action.bridge)
                if bridge is None:
                    self._bridges_made += 1
                found[action.link] = bridge.index if bridge is not None else -self._bridges_made
        return found


def _thing(action: Action) -> tuple[str, str, object]:
    """What is counted; an empty name for an action that is only the other half of another one."""
    match action:
        case DeleteAddress() | DeleteRoute():
            return "", "", None
        case AddAddress(address) | RenewAddress(address):
            return action.name, action.link, address.key
        case AddRoute(route):
            return action.name, action.link, route.key
        case _:
            return action.name, action.link, None
