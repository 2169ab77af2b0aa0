"""What one bridge has to report: its present problem, ports that are missing, and events for the log."""

from __future__ import annotations

from collections.abc import Collection

from bridged.netlink.attachment_state import AttachmentEvent


class Reports:
    """Collects events until `take`. Each problem and each missing port is reported once."""

    def __init__(self, bridge: str) -> None:
        self.problem: str | None = None
        self._bridge = bridge
        self._events: list[AttachmentEvent] = []
        self._missing: frozenset[str] = frozenset()

    def take(self) -> list[AttachmentEvent]:
        """The events since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    def tell(self, name: str, **details: str) -> None:
        self._events.append(AttachmentEvent(name, self._bridge, details))

    def expect_missing(self, missing: frozenset[str]) -> None:
        """Do not report these missing ports: `host_warnings` has done it."""
        self._missing = missing

    def note_missing(self, missing: frozenset[str], wished: Collection[str]) -> None:
        """Report ports that have gone, and those of `wished` that are back."""
        for name in sorted(missing - self._missing):
            self.tell("bridge_port_missing", port=name)
        for name in sorted(self._missing - missing):
            if name in wished:
                self.tell("bridge_port_found", port=name)
        self._missing = missing

    def note_problems(self, problems: Collection[str]) -> None:
        """Why not all is as wished; empty: all is."""
        problem = "; ".join(dict.fromkeys(problems)) or None
        if problem == self.problem:
            return
        self.problem = problem
        if problem is None:
            self.tell("bridge_problem_over")
        else:
            self.tell("bridge_problem", reason=problem)
