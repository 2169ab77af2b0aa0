"""What the admin API needs of the running daemon, which implements `AdminState`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridged.addresses import MacAddress
from bridged.runtime.site.trust_keeper import Revocation
from bridged.runtime.snapshot import DaemonSnapshot, ReloadStatus
from bridged.runtime.tunnels.static_stations import StaticStation
from bridged.units import Seconds


@dataclass(frozen=True, slots=True)
class TunnelStation:
    """An address behind `peer` or (None) the TAP; `age`: time since its last frame, 0 for a static one."""

    address: MacAddress
    peer: str | None
    age: Seconds
    is_static: bool = False


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

    def static_stations(self, tunnel: str) -> Sequence[StaticStation]:
        """The stations that operators have added to one tunnel.

        Raises:
            KeyError: there is no such tunnel.
        """

    def add_station(self, tunnel: str, address: MacAddress, peer: str | None) -> StaticStation:
        """Put a station behind a peer, or (None) into the LAN; see `StaticStations.add`.

        Raises:
            KeyError: there is no such tunnel.
            DataplaneError: refused; nothing was changed.
        """

    def remove_station(self, tunnel: str, address: MacAddress) -> bool:
        """Forget a station, static or learned. False: there was none.

        Raises:
            KeyError: there is no such tunnel.
        """

    def fdb(self, tunnel: str) -> Sequence[TunnelStation]:
        """The stations of one tunnel.

        Raises:
            KeyError: there is no such tunnel.
        """
