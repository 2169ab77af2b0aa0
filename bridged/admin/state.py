"""What the admin API asks of the running daemon. The daemon implements `AdminState`; nothing here runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridged.addresses import MacAddress
from bridged.runtime.snapshot import DaemonSnapshot, ReloadStatus
from bridged.units import Seconds


@dataclass(frozen=True, slots=True)
class Station:
    """One learned address of a tunnel: behind `peer`, or (None) behind the TAP; `age` since last heard."""

    address: MacAddress
    peer: str | None
    age: Seconds


class AdminState(Protocol):
    """The daemon as the API sees it; called in its event loop: only `reload` takes its time."""

    def snapshot(self) -> DaemonSnapshot:
        """The state of everything now."""

    def confirm(self) -> bool:
        """Keep what an unconfirmed start has changed; False where nothing waits for confirmation."""

    async def reload(self) -> ReloadStatus:
        """Read the configuration anew and become what it says; where that fails all stays as it was."""

    def fdb(self, tunnel: str) -> Sequence[Station]:
        """The stations of one tunnel.

        Raises:
            KeyError: there is no such tunnel.
        """
