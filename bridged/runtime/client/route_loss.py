"""Leaves a server whose address has lost its route, where another address of our servers has one.

Asyncio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridged.addresses import Endpoint
from bridged.runtime.client.calls import Calls
from bridged.runtime.client.remote_order import RemoteOrder
from bridged.runtime.client.route_probe import has_route
from bridged.supervision import SUPERVISOR, Timer

LOOK_SECONDS: Final = 0.3
"""How long a route may be missing. When an address is replaced, its routes are back sooner."""


class RouteLoss:
    """Looks once after each `look_soon`, until `close`. `local`: the address that the tunnel sends from."""

    def __init__(
        self, calls: Calls, order: RemoteOrder, local: Callable[[], Endpoint | None], subject: str
    ) -> None:
        self._calls = calls
        self._order = order
        self._local = local
        self._subject = subject
        self._timer: Timer | None = None

    def look_soon(self) -> None:
        """Routes have changed."""
        if self._timer is None:
            self._timer = SUPERVISOR.after("look_for_way", LOOK_SECONDS, self._look, self._subject)

    def close(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        call = self._calls.connected
        if call is not None and self._should_leave(call.link.endpoint):
            call.link.close("transport_closed", f"no route to {call.link.endpoint} any more", notify=False)

    def _should_leave(self, endpoint: Endpoint) -> bool:
        local = self._local()
        if has_route(endpoint, local):
            return False
        others = self._order.addresses() - {endpoint}
        return any(has_route(other, local) for other in others)
