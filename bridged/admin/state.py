"""What the admin API needs of the running daemon, which implements `AdminState`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridged.addresses import MacAddress
from bridged.runtime.site.trust_keeper import Revocation
from bridged.runtime.snapshot import DaemonSnapshot, ReloadStatus
from bridged.units import Seconds


@dataclass(frozen=True, slots=True)
class TunnelStation:
    """A learned address of a tunnel, behind `peer` or (None) the TAP; `age`: time since its last frame."""

    address: MacAddress
    peer: str | None
    age: Seconds


class AdminState(Protocol):
    """The daemon as the API sees it. Call it in its event loop; `reload` and `revoke` may take seconds."""

    def snapshot(self) -> DaemonSnapshot:
        """The state of everything now."""

    def confirm(self) -> bool:
        """Keep the changes of an unconfirmed start. False: nothing waits for confirmation."""

    def kick(self, name: str, tunnel: str | None) -> int:
        """End the sessions of a peer, which may connect again; return their number.

        Raises:
            KeyError: there is no such tunnel.
        """

    async def revoke(self, name: str, keep: str | None, state: str | None) -> Revocation:
        """Revoke the certificates of a name, except the one with serial `keep`, and end their sessions.

        `state`: the state folder of the CA; None: the daemon's.

        Raises:
            BridgedError: refused; nothing was changed.
        """

    async def reload(self) -> ReloadStatus:
        """Reload the configuration. If that fails, the previous one stays in force."""

    def fdb(self, tunnel: str) -> Sequence[TunnelStation]:
        """The stations of one tunnel.

        Raises:
            KeyError: there is no such tunnel.
        """
