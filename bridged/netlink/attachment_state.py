"""What a kept bridge reports: events, and its state at the last look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AttachmentEvent:
    """An event for the log: a constant `name` and its `details`.

    Names: `bridge_applied`, `bridge_repaired` (details: actions), `bridge_problem` (reason),
    `bridge_problem_over`, `bridge_journal_failed` (reason), `bridge_journal_damaged` (reason),
    `bridge_leftovers_given_back`, `bridge_leftovers_remain` (reason), `bridge_port_missing`,
    `bridge_port_found` (port).
    """

    name: str
    bridge: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttachmentStatus:
    """The bridge at the last look. `ports`: True where the link has carrier and belongs to the bridge.

    `missing`: ports that do not exist. `repairs` counts by action name. `problem`: why something is not as
    wished (None: all is, or waits for a link that is missing).
    """

    name: str
    mac: str | None
    mtu: int | None
    adopted: bool
    ports: Mapping[str, bool]
    repairs: Mapping[str, int]
    problem: str | None = None
    missing: tuple[str, ...] = ()
