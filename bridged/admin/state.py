"""What the admin API asks of the running daemon. The daemon implements `AdminState`; nothing here runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridged.addresses import MacAddress
from bridged.runtime.site.trust_keeper import Revocation
from bridged.runtime.snapshot import DaemonSnapshot, ReloadStatus
from bridged.units import Seconds


@dataclass(frozen=True, slots=True)
class Station:
    """One learned address of a tunnel: behind `peer`, or (None) behind the TAP; `age` since last heard."""

    address: MacAddress
    peer: str | None
    age: Seconds


class AdminState(Protocol):
    """The daemon as the API sees it; called in its event loop: `reload` and `revoke` take their time."""

    def snapshot(self) -> DaemonSnapshot:
        """The state of everything now."""

    def confirm(self) -> bool:
        """Keep what an unconfirmed start has changed; False where nothing waits for confirmation."""

    def kick(self, name: str, tunnel: str | None) -> int:
        """End the sessions of a peer, which may come again; how many there were.

        Raises:
            KeyError: there is no such tunnel.
        """

    async def revoke(self, name: str, keep: str | None, state: str | None) -> Revocation:
        """Revoke the certificates of a name, but the one with serial `keep`, and end their sessions.

        `state`: the state folder that is meant; None: the daemon's own.

        Raises:
            BridgedError: it cannot be done; nothing was changed.
        """

    async def reload(self) -> ReloadStatus:
        """Read the configuration anew and become what it says; where that fails all stays as it was."""

    def fdb(self, tunnel: str) -> Sequence[Station]:
        """The stations of one tunnel.

        Raises:
            KeyError: there is no such tunnel.
        """
