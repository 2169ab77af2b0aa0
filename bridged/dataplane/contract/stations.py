"""Stations, where they are, and what changes in the forwarding database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from bridged.units import PeerHandle, Seconds

StationEventKind = Literal["learned", "moved", "removed"]


class Station(NamedTuple):
    """A MAC address in one VLAN: the key of the forwarding database.

    `vlan` is 0..4094. Today every frame belongs to VLAN 0, with or without tags. `mac`: 6 bytes.
    """

    vlan: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """A known station and where it is (`handle` None: behind the TAP).

    `age`: seconds since it was last heard; 0 for a static one, which neither ages nor moves.
    """

    station: Station
    handle: PeerHandle | None
    age: Seconds
    is_static: bool = False


@dataclass(frozen=True, slots=True)
class StationEvent:
    """A change of the FDB.

    `handle` is the station's port after the change, or before it for `removed` (None: the TAP).
    """

    kind: StationEventKind
    station: Station
    handle: PeerHandle | None


@dataclass(frozen=True, slots=True)
class StationEvents:
    """Changes of the FDB in order, as `station_events` returns them.

    Pass `next` to the next call. `lost` changes came before `events` and are no longer kept: look up the
    stations that matter (`find_station`).
    """

    events: tuple[StationEvent, ...]
    next: int
    lost: int
