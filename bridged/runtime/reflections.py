"""Frames of our own that a LAN port sends back must not move remote stations in the kernel's bridge.

A promiscuous port (a hypervisor's virtual switch, a wireless bridge) may return what we flooded to it. Our
own FDB is guarded by the data plane; the kernel's bridge would believe that the remote station is behind that
port, and drop every answer to it. So such a station is pinned to the TAP, until it falls silent or really
moves.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from bridged.addresses import MacAddress
from bridged.dataplane.contract import FdbEntry
from bridged.errors import NetlinkError
from bridged.netlink import pin_station, unpin_station
from bridged.netlink.fdb_watch import FdbWatch, StationHeard
from bridged.supervision import SUPERVISOR, Timer

REFLECTED_WITHIN_SECONDS: Final = 1.0
"""A station that a peer sent frames of so lately, and that now seems to be on the LAN, is reflected."""
FIRST_PIN_SECONDS: Final = 3.0
"""A pin ends so long after the station was last heard from its peer: it may have moved to the LAN."""
LONGEST_PIN_SECONDS: Final = 300.0
"""Each further reflection of a station doubles the time, up to this."""
PINS_MAX: Final = 1024
FORGOTTEN_MAX: Final = 4096
SWEEP_SECONDS: Final = 1.0


class HasStations(Protocol):
    """A running tunnel, as far as reflections care."""

    tap_name: str | None

    def fdb(self) -> list[tuple[FdbEntry, str | None]]: ...

    def note_reflection(self, address: MacAddress, port: str, peer: str) -> None: ...


@dataclass(slots=True)
class _Pin:
    tunnel: HasStations
    tap: str
    seconds: float


class Reflections:
    """Watches the kernel's FDB from `start` to `close`, for what `apply` names."""

    def __init__(self) -> None:
        self._bridge_of: dict[str, str] = {}
        self._tunnels: Mapping[str, Collection[HasStations]] = {}
        self._watch = FdbWatch(self._hear)
        self._pins: dict[MacAddress, _Pin] = {}
        self._times: dict[MacAddress, int] = {}
        self._timer: Timer | None = None
        self._log = structlog.get_logger("bridged.reflections")

    def apply(
        self, lan_ports: Mapping[str, Collection[str]], tunnels: Mapping[str, Collection[HasStations]]
    ) -> None:
        """Watch these from now on: bridge name -> its LAN ports, and the tunnels in it."""
        self._bridge_of = {port: bridge for bridge, ports in lan_ports.items() for port in ports}
        self._tunnels = tunnels
        running = {id(tunnel) for found in tunnels.values() for tunnel in found}
        for address, pin in list(self._pins.items()):
            if id(pin.tunnel) not in running:
                self._unpin(address)

    def start(self) -> None:
        """Begin to watch.

        Raises:
            OSError: no netlink socket to be had.
        """
        self._watch.start()

    def close(self) -> None:
        """Let all stations go. Idempotent."""
        self._watch.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for address in list(self._pins):
            self._unpin(address)

    def _hear(self, heard: list[StationHeard]) -> None:
        suspects: dict[str, dict[MacAddress, str]] = {}
        for station in heard:
            port = _name_of(station.index)
            bridge = self._bridge_of.get(port)
            if bridge is not None and station.address not in self._pins:
                suspects.setdefault(bridge, {})[station.address] = port
        for bridge, ports in suspects.items():
            for tunnel in self._tunnels.get(bridge, ()):
                self._compare(tunnel, ports)

    def _compare(self, tunnel: HasStations, ports: Mapping[MacAddress, str]) -> None:
        for entry, peer in tunnel.fdb():
            port = ports.get(entry.address)
            if port is None or peer is None or entry.handle is None:
                continue
            if entry.age <= REFLECTED_WITHIN_SECONDS and len(self._pins) < PINS_MAX:
                self._pin(tunnel, entry.address, port, peer)

    def _pin(self, tunnel: HasStations, address: MacAddress, port: str, peer: str) -> None:
        tap = tunnel.tap_name
        if tap is None:
            return
        try:
            pin_station(address, tap)
        except NetlinkError as error:
            self._log.warning("pin_failed", address=str(address), tap=tap, detail=str(error))
            return
        times = self._times.get(address, 0)
        if len(self._times) >= FORGOTTEN_MAX:
            self._times.clear()
        self._times[address] = times + 1
        seconds = min(LONGEST_PIN_SECONDS, FIRST_PIN_SECONDS * 2.0 ** min(times, 16))
        self._pins[address] = _Pin(tunnel, tap, seconds)
        tunnel.note_reflection(address, port, peer)
        if self._timer is None:
            self._timer = SUPERVISOR.every("reflections", SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        tunnels = {id(pin.tunnel): pin.tunnel for pin in self._pins.values()}
        ages = {
            (key, entry.address): entry.age
            for key, tunnel in tunnels.items()
            for entry in _remote(tunnel.fdb())
        }
        for address, pin in list(self._pins.items()):
            age = ages.get((id(pin.tunnel), address))
            if age is None:
                # Moved, or gone with its peer: a new story.
                self._times.pop(address, None)
                self._unpin(address)
            elif age > pin.seconds:
                self._unpin(address)
        if not self._pins and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unpin(self, address: MacAddress) -> None:
        pin = self._pins.pop(address)
        try:
            unpin_station(address, pin.tap)
        except NetlinkError as error:
            # The TAP or the bridge is gone, and the pin with it; or else the bridge's ageing is of no help.
            self._log.debug("unpin_failed", address=str(address), tap=pin.tap, detail=str(error))


def _remote(stations: Iterable[tuple[FdbEntry, str | None]]) -> Iterable[FdbEntry]:
    return (entry for entry, _ in stations if entry.handle is not None)


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
