"""Stations that an operator has put behind a peer, or into the LAN, whatever the switch learns.

A peer is known by its name, and so a station outlives the peer's sessions: it is installed again whenever
the peer connects. Owned by a tunnel, and gone with it; all methods run in the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from bridged.addresses import MacAddress
from bridged.dataplane.contract import Station
from bridged.errors import BridgedError, DataplaneError
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.link_table import newest
from bridged.runtime.tunnels.sessions import Sessions

STATIC_STATIONS_MAX: Final = 1024
"""Of one tunnel."""


@dataclass(frozen=True, slots=True)
class StaticStation:
    """`peer` None: in the LAN. `is_installed` False: the peer is not connected."""

    address: MacAddress
    peer: str | None
    is_installed: bool


class StaticStations:
    """What was added, by address."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._peers: dict[MacAddress, str | None] = {}
        self._log = structlog.get_logger("bridged").bind(tunnel=sessions.plan.name)

    def __iter__(self) -> Iterator[StaticStation]:
        for address, peer in self._peers.items():
            yield StaticStation(address, peer, peer is None or self._link_of(peer) is not None)

    def add(self, address: MacAddress, peer: str | None) -> StaticStation:
        """Put a station behind `peer`, or (None) into the LAN, wherever it was before.

        Raises:
            DataplaneError: `bad_station`; `fdb_full`: there is no room. Nothing was changed.
        """
        if address not in self._peers and len(self._peers) >= STATIC_STATIONS_MAX:
            text = f"the tunnel has {STATIC_STATIONS_MAX} static stations already; remove one first"
            raise DataplaneError("fdb_full", text)
        if address.octets[0] & 1 or not any(address.octets):
            raise DataplaneError("bad_station", f"{address} is a group's address, or empty: name one station")
        link = None if peer is None else self._link_of(peer)
        if peer is None or link is not None:
            self._install(address, link)
        elif address in self._peers:
            # It was elsewhere, and waits for its new peer now.
            self._sessions.dataplane.remove_station(_station(address))
        self._peers[address] = peer
        self._log.info("station_added", address=str(address), peer=peer or "LAN", waits=peer and link is None)
        return StaticStation(address, peer, peer is None or link is not None)

    def remove(self, address: MacAddress) -> bool:
        """Let the switch learn this station again. False: there was no such station, static or learned."""
        was_static = address in self._peers
        self._peers.pop(address, None)
        dataplane = self._sessions.dataplane
        was_known = dataplane.find_station(_station(address)) is not None
        dataplane.remove_station(_station(address))
        if was_static or was_known:
            self._log.info("station_removed", address=str(address))
        return was_static or was_known

    def renew(self, name: str) -> None:
        """A session of the peer `name` began or ended: install its stations at the newest that is left."""
        addresses = [address for address, peer in self._peers.items() if peer == name]
        link = self._link_of(name) if addresses else None
        for address in addresses if link is not None else ():
            try:
                self._install(address, link)
            except BridgedError as error:
                self._log.warning("station_not_installed", address=str(address), peer=name, code=error.code)

    def _install(self, address: MacAddress, link: PeerLink | None) -> None:
        handle = None if link is None else link.handle
        self._sessions.dataplane.install_station(_station(address), handle, is_static=True)

    def _link_of(self, name: str) -> PeerLink | None:
        return newest(link for link in self._sessions.links.named(name) if link.is_attached)


def _station(address: MacAddress) -> Station:
    return Station(0, address.octets)
