"""Logs, once each, the offloads that a running data plane could not use.

Data planes only count these fallbacks (`DataplaneSnapshot`): one may happen with every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from bridged.catalogue.figures import OFFLOADS
from bridged.dataplane.contract import DataPlane
from bridged.supervision import SUPERVISOR, Timer

INTERVAL_SECONDS: Final = 2.0

_MEANINGS: Final = {
    (offload.name, cause): text for offload in OFFLOADS for cause, text in offload.fallbacks.items()
}


class FallbackLog:
    """Reads the counters of all tunnels every few seconds. `planes` gives the running ones by tunnel."""

    def __init__(self, planes: Callable[[], Mapping[str, DataPlane]]) -> None:
        self._planes = planes
        self._logged: set[tuple[str, str, str]] = set()
        self._timer: Timer | None = None
        self._log = structlog.get_logger("bridged.offloads")

    def start(self) -> None:
        """Begin, in the running loop."""
        self._timer = SUPERVISOR.every("fallback_log", INTERVAL_SECONDS, self.look)
        self.look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Log what is new. A tunnel that ended and started again is logged again."""
        planes = self._planes()
        self._logged = {known for known in self._logged if known[0] in planes}
        for tunnel, plane in planes.items():
            for offload, cause in plane.snapshot().offload_fallbacks:
                if (tunnel, offload, cause) not in self._logged:
                    self._logged.add((tunnel, offload, cause))
                    detail = _MEANINGS.get((offload, cause), "")
                    self._log.warning(
                        "offload_fallback", tunnel=tunnel, offload=offload, cause=cause, detail=detail
                    )
