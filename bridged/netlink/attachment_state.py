"""What is told of a bridge that is kept: events, and its state as last seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AttachmentEvent:
    """Something to tell: `name` is constant, `details` are for the log.

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
    """The bridge as last seen. `ports`: carrier is there and the master is right.

    `missing`: those that do not exist. `repairs` counts by action name; `problem` says why not all is as
    wished (None: all is, or waits for a link that is not there).
    """

    name: str
    mac: str | None
    mtu: int | None
    adopted: bool
    ports: Mapping[str, bool]
    repairs: Mapping[str, int]
    problem: str | None = None
    missing: tuple[str, ...] = ()
