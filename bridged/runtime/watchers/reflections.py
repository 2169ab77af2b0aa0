"""Keeps remote stations in place in the kernel's bridge when a LAN port sends our own frames back.

A promiscuous port (a hypervisor's virtual switch, a wireless bridge) may return what we flooded to it. The
data plane guards our own FDB; the kernel's bridge would believe that the remote station is behind that port,
and drop every answer to it. Such a station is held at the TAP until it falls silent or really moves.

To the kernel, a peer that sends frames with a LAN station's address looks the same: it would get all frames
for that station. A station that a LAN port had first is therefore never held, and neither is this host or a
gateway of it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog

from bridged.addresses import MacAddress
from bridged.dataplane.contract import FdbEntry, StationEvents
from bridged.endings import take_every_step
from bridged.errors import NetlinkError
from bridged.netlink import hold_station, learned_stations, protected_stations, release_station
from bridged.netlink.fdb_watch import FdbWatch, StationHeard
from bridged.runtime.watchers.sightings import Sightings
from bridged.supervision import SUPERVISOR, Timer

REFLECTED_WITHIN_SECONDS: Final = 1.0
"""A station is reflected if a peer sent frames of it this recently, and it now seems to be on the LAN."""
FIRST_HOLD_SECONDS: Final = 3.0
"""How long a hold outlives the station's last frame from its peer: it may have moved to the LAN."""
LONGEST_HOLD_SECONDS: Final = 300.0
"""Each further reflection of a station doubles the time, up to this limit."""
HOLDS_MAX: Final = 1024
FORGOTTEN_MAX: Final = 4096
SWEEP_SECONDS: Final = 1.0
COMPARE_SECONDS: Final = 0.1
"""Suspects wait this long and are compared together: a peer can contest an address at each frame."""
SUSPECTS_MAX: Final = 1024
"""For each bridge, until they are compared."""
PROTECTED_SECONDS: Final = 1.0
CONTESTED_SECONDS: Final = 60.0
"""How often a contested station is reported; CONTESTED_MAX stations are remembered."""
CONTESTED_MAX: Final = 256


class HasStations(Protocol):
    """A running tunnel, as far as reflections care."""

    @property
    def tap_name(self) -> str: ...

    def find_station(self, address: MacAddress) -> tuple[FdbEntry, str | None] | None: ...

    def station_events(self, after: int) -> StationEvents: ...

    def note_reflection(self, address: MacAddress, port: str, peer: str) -> None: ...

    def note_contested(self, address: MacAddress, port: str, peer: str) -> None: ...


@dataclass(slots=True)
class _Hold:
    """A station held at a TAP for `seconds` after it was last heard; `due`: when to look again."""

    tunnel: HasStations
    tap: str
    seconds: float
    due: float


class Reflections:
    """Watches the kernel's FDB from `start` to `close`, for what `apply` names."""

    def __init__(self) -> None:
        self._bridge_of: dict[str, str] = {}
        self._tunnels: Mapping[str, Collection[HasStations]] = {}
        self._bridge_of_tap: dict[str, str] = {}
        self._sightings = Sightings()
        self._told: dict[MacAddress, float] = {}
        self._protected: dict[str, tuple[float, set[MacAddress]]] = {}
        self._is_watching = False
        self._watch = FdbWatch(self._hear, self._look)
        self._held: dict[MacAddress, _Hold] = {}
        self._followed: dict[HasStations, int] = {}
        """Tunnels with held stations, and how far their station events are read."""
        self._times: dict[MacAddress, int] = {}
        self._timer: Timer | None = None
        self._suspects: dict[str, dict[MacAddress, str]] = {}
        self._compare_timer: Timer | None = None
        self._log = structlog.get_logger("bridged.reflections")

    def apply(
        self, lan_ports: Mapping[str, Collection[str]], tunnels: Mapping[str, Collection[HasStations]]
    ) -> None:
        """Watch these from now on: bridge name -> its LAN ports, and the tunnels in it."""
        self._bridge_of = {port: bridge for bridge, ports in lan_ports.items() for port in ports}
        self._tunnels = tunnels
        self._bridge_of_tap = {
            tunnel.tap_name: bridge for bridge, found in tunnels.items() for tunnel in found
        }
        if self._is_watching:
            self._look()
        running = {tunnel for found in tunnels.values() for tunnel in found}
        for address, hold in list(self._held.items()):
            if hold.tunnel not in running:
                self._release(address)

    def start(self) -> None:
        """Begin to watch.

        Raises:
            OSError: no netlink socket to be had.
        """
        self._watch.start()
        self._is_watching = True
        self._look()

    def close(self) -> None:
        """Let all stations go. Idempotent."""
        self._is_watching = False
        for timer in (self._timer, self._compare_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._compare_timer = None
        self._suspects.clear()
        take_every_step([self._watch.close, *(partial(self._release, address) for address in self._held)])

    def _hear(self, heard: list[StationHeard]) -> None:
        now = time.monotonic()
        for station in heard:
            address, port = station.address, _name_of(station.index)
            if port in self._bridge_of_tap:
                self._hear_at_tap((self._bridge_of_tap[port], address), station.gone, now)
            bridge = self._bridge_of.get(port)
            if bridge is None or station.gone:
                continue
            self._sightings.hear_lan((bridge, address), now)
            if address not in self._held and self._sightings.is_claimed_by_tap((bridge, address)):
                suspects = self._suspects.setdefault(bridge, {})
                if len(suspects) < SUSPECTS_MAX:
                    suspects[address] = port
        if self._suspects and self._compare_timer is None:
            self._compare_all()

    def _compare_all(self) -> None:
        self._compare_timer = None
        if not self._suspects:
            return
        suspects, self._suspects = self._suspects, {}
        try:
            for bridge, ports in suspects.items():
                for tunnel in self._tunnels.get(bridge, ()):
                    self._compare(bridge, tunnel, ports)
        finally:
            self._compare_timer = SUPERVISOR.after("compare_stations", COMPARE_SECONDS, self._compare_all)

    def _look(self) -> None:
        """Take in what the kernel's bridges know already: heard before we listened, or not told to us."""
        lan = {_index_of(port): bridge for port, bridge in self._bridge_of.items()}
        taps = {_index_of(tap): bridge for tap, bridge in self._bridge_of_tap.items()}
        now = time.monotonic()
        try:
            for address, index in learned_stations(lan.keys() | taps.keys()) if lan or taps else ():
                if index in lan:
                    self._sightings.hear_lan((lan[index], address), now)
                else:
                    self._sightings.hear_tap((taps[index], address), now)
        except (NetlinkError, OSError) as error:
            SUPERVISOR.note_failure("reflections", "", error)
        else:
            SUPERVISOR.note_done("reflections", "")

    def _hear_at_tap(self, station: tuple[str, MacAddress], is_gone: bool, now: float) -> None:
        if is_gone:
            self._sightings.forget_tap(station)
        else:
            self._sightings.hear_tap(station, now)

    def _compare(self, bridge: str, tunnel: HasStations, ports: Mapping[MacAddress, str]) -> None:
        now = time.monotonic()
        for address, port in ports.items():
            found = tunnel.find_station(address)
            if found is None:
                continue
            entry, peer = found
            if peer is None or entry.age > REFLECTED_WITHIN_SECONDS:
                continue
            is_ours = address in self._protected_in(bridge, now)
            if is_ours or not self._sightings.was_remote_first((bridge, address), now):
                self._tell_contested(tunnel, address, port, peer, now)
            elif len(self._held) < HOLDS_MAX:
                self._hold(tunnel, address, port, peer, now)

    def _protected_in(self, bridge: str, now: float) -> set[MacAddress]:
        """See `protected_stations`, asked once a second at most; without an answer nothing is held."""
        known = self._protected.get(bridge)
        if known is None or now - known[0] > PROTECTED_SECONDS:
            known = self._protected[bridge] = now, protected_stations(bridge)
        return known[1]

    def _tell_contested(
        self, tunnel: HasStations, address: MacAddress, port: str, peer: str, now: float
    ) -> None:
        """Once in a while for each station: the two may take it from each other many times a second."""
        if now - self._told.get(address, float("-inf")) < CONTESTED_SECONDS:
            return
        if len(self._told) >= CONTESTED_MAX:
            self._told = {known: at for known, at in self._told.items() if now - at < CONTESTED_SECONDS}
        if len(self._told) < CONTESTED_MAX:
            self._told[address] = now
            tunnel.note_contested(address, port, peer)

    def _hold(self, tunnel: HasStations, address: MacAddress, port: str, peer: str, now: float) -> None:
        tap = tunnel.tap_name
        try:
            hold_station(address, tap)
        except NetlinkError as error:
            self._log.warning("pin_failed", address=str(address), tap=tap, detail=str(error))
            return
        times = self._times.get(address, 0)
        if len(self._times) >= FORGOTTEN_MAX:
            self._times.clear()
        self._times[address] = times + 1
        seconds = min(LONGEST_HOLD_SECONDS, FIRST_HOLD_SECONDS * 2.0 ** min(times, 16))
        earlier = self._held.pop(address, None)
        if earlier is not None:
            # Held at the TAP of another tunnel until now: the kernel has replaced that entry.
            self._unfollow(earlier.tunnel)
        # Due at once: the station may have moved between the look at it and the events that we follow.
        self._held[address] = _Hold(tunnel, tap, seconds, now)
        if tunnel not in self._followed:
            self._followed[tunnel] = tunnel.station_events(0).next
        tunnel.note_reflection(address, port, peer)
        if self._timer is None:
            self._timer = SUPERVISOR.every("reflections", SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Release stations that have moved to the LAN, gone with their peer, or fallen silent."""
        now = time.monotonic()
        for tunnel, position in list(self._followed.items()):
            changes = tunnel.station_events(position)
            self._followed[tunnel] = changes.next
            changed = {MacAddress(event.station.mac) for event in changes.events}
            for address, hold in list(self._held.items()):
                if hold.tunnel is tunnel and (changes.lost or address in changed or now >= hold.due):
                    self._look_again(address, hold, now)
        if not self._held and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self, address: MacAddress, hold: _Hold, now: float) -> None:
        found = hold.tunnel.find_station(address)
        if found is None or found[0].handle is None:
            # It moved, or went with its peer: its next reflection is held for FIRST_HOLD_SECONDS again.
            self._times.pop(address, None)
            self._release(address)
        elif found[0].age > hold.seconds:
            self._release(address)
        else:
            hold.due = now + hold.seconds - found[0].age

    def _release(self, address: MacAddress) -> None:
        hold = self._held.pop(address)
        self._unfollow(hold.tunnel)
        try:
            release_station(address, hold.tap)
        except NetlinkError as error:
            # The TAP or the bridge is gone, and the hold with it; or else the bridge's ageing is of no help.
            self._log.debug("unpin_failed", address=str(address), tap=hold.tap, detail=str(error))

    def _unfollow(self, tunnel: HasStations) -> None:
        """Read its station events no longer, unless it still has held stations."""
        if all(hold.tunnel is not tunnel for hold in self._held.values()):
            self._followed.pop(tunnel, None)


def _index_of(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
