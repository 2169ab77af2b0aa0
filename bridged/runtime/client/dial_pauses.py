"""How long a TCP endpoint that takes no connection, or only closes it, is left alone.

A lost datagram costs nobody anything; a connection costs the machine in front of a dead server one each time.
Source: docs/decisions/0102.
Pure: callers pass `now` (monotonic seconds); `draw` gives numbers from 0 to 1.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridged.addresses import Endpoint
from bridged.runtime.client.backoff import pause_after

ENDPOINTS_MAX: Final = 1024
"""Endpoints whose failures are counted."""


@dataclass(slots=True)
class _Failing:
    count: int = 0
    until: float = 0.0


class DialPauses:
    """Knows endpoints by TCP only; one by UDP never waits."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._failing: dict[Endpoint, _Failing] = {}

    def note_failure(self, endpoint: Endpoint, now: float) -> None:
        """No connection could be made, or it ended before the server had said anything."""
        if endpoint.transport != "tcp":
            return
        if endpoint not in self._failing and len(self._failing) >= ENDPOINTS_MAX:
            self._failing.clear()
        failing = self._failing.setdefault(endpoint, _Failing())
        failing.count += 1
        failing.until = now + pause_after(failing.count, self._draw)

    def note_connected(self, endpoint: Endpoint) -> None:
        self._failing.pop(endpoint, None)

    def until(self, endpoint: Endpoint) -> float:
        """When it may be dialled again; in the past where it may be now."""
        failing = self._failing.get(endpoint)
        return failing.until if failing is not None else 0.0

    def wake(self) -> None:
        """Something changed that may let us through: end all pauses."""
        for failing in self._failing.values():
            failing.until = 0.0

    def start_again(self) -> None:
        """Begin again with the shortest pauses."""
        self._failing.clear()
