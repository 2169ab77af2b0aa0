"""Says in the log, once each, what offload a data plane had to give up while it ran.

The data planes only count them (bridged/dataplane/contract.py): a fallback may come with every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from bridged.dataplane.contract import DataPlane
from bridged.supervision import SUPERVISOR, Timer

INTERVAL_SECONDS: Final = 2.0

_MEANINGS: Final = {
    ("udp_gso", "eio"): "what carries the tunnel segments no UDP (IPsec, or a card without checksums): "
    "packets leave one by one",
    ("udp_gso", "einval"): "the kernel does not take UDP_SEGMENT here: packets leave one by one",
    ("udp_gso", "emsgsize"): "packets larger than the path's MTU leave one by one, as IP fragments",
    ("udp_gro", "einval"): "this kernel has no UDP_GRO: packets are received one by one",
    (
        "udp_steering",
        "einval",
    ): "the kernel takes no program that chooses among sockets (SO_ATTACH_REUSEPORT_CBPF): the "
    "hash of addresses and ports shares the peers out among the workers, perhaps unevenly",
    ("coalesce", "einval"): "the TAP refused a super-frame: frames are written one by one",
}


class FallbackLog:
    """Looks at the counters of all tunnels again and again. `planes`: those that run now, by tunnel."""

    def __init__(self, planes: Callable[[], Mapping[str, DataPlane]]) -> None:
        self._planes = planes
        self._told: set[tuple[str, str, str]] = set()
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
        """Tell what is new; a tunnel that has gone and comes again begins anew."""
        planes = self._planes()
        self._told = {told for told in self._told if told[0] in planes}
        for tunnel, plane in planes.items():
            for offload, cause in plane.snapshot().offload_fallbacks:
                if (tunnel, offload, cause) not in self._told:
                    self._told.add((tunnel, offload, cause))
                    detail = _MEANINGS.get((offload, cause), "")
                    self._log.warning(
                        "offload_fallback", tunnel=tunnel, offload=offload, cause=cause, detail=detail
                    )
