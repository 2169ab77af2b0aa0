"""When to repair what somebody undid: at once the first times, then ever more seldom.

Two programs that each want something else of the same link would otherwise undo each other's work for ever.
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
"""Repairs of one thing that are done at once."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 60.0
FORGIVEN_AFTER_SECONDS = 60.0
RECORDS_LIMIT = 10_000
"""Things kept count of; addresses and routes of a busy host come and go for years."""

Key = tuple[str, str]
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
    """What is a repair: what was done before, and what a link needs that was as wished already.

    A link that vanished and came back (another index), or whose bridge did, is repaired at once: that is no
    fight. `counts` is by action name.
    """

    def __init__(self) -> None:
        self._records: dict[tuple[str, str, object], _Record] = {}
        self._settled: dict[str, int] = {}
        self._bridges_made = 0
        self.counts: Counter[str] = Counter()

    def settle(self, observed: HostLinks) -> None:
        """Nothing is left to do: what has to be done to these very links from now on is repair."""
        self._settled = {link.name: link.index for link in observed.links}

    def held_back(self, now: float) -> frozenset[Key]:
        """What must wait for its time."""
        return frozenset(key[:2] for key, record in self._records.items() if record.due_at() > now)

    def next_due(self, now: float) -> float | None:
        """When the first of what is held back may be done; None: nothing is."""
        waiting = [due for record in self._records.values() if (due := record.due_at()) > now]
        return min(waiting, default=None)

    def note(self, actions: Sequence[Action], observed: HostLinks, now: float) -> Counter[str]:
        """Record what was done, planned from `observed`; returns how much of it was repair, by action."""
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
        """Of the links that join a bridge: which bridge, by index; negative: being made."""
        found: dict[str, int] = {}
        for action in actions:
            if isinstance(action, Attach):
                bridge = observed.link(action.bridge)
                if bridge is None:
                    self._bridges_made += 1
                found[action.link] = bridge.index if bridge is not None else -self._bridges_made
        return found


def _thing(action: Action) -> tuple[str, str, object]:
    """What is kept count of; an empty name for what is only the other half of something."""
    match action:
        case DeleteAddress() | DeleteRoute():
            return "", "", None
        case AddAddress(address) | RenewAddress(address):
            return action.name, action.link, address.key
        case AddRoute(route):
            return action.name, action.link, route.key
        case _:
            return action.name, action.link, None
