"""What a data plane tells the control plane: `DataPlane.poll_events`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bridged.addresses import Endpoint
from bridged.dataplane.contract.stations import Station
from bridged.units import KeyId, PeerHandle

StreamEnd = Literal["closed", "reset", "bad_framing", "overflow"]
"""`closed`: the far end closed it. `reset`: the network or the far end's system broke it off. `bad_framing`:
a length of 0. `overflow`: the far end reads too slowly for control packets.
"""
LimitTrigger = Literal["bytes", "packets", "aead_limit"]


@dataclass(frozen=True, slots=True)
class ControlReceived:
    """A packet with a control opcode, or an unknown one. Anybody can send it; nothing in it is checked."""

    datagram: bytes
    source: Endpoint


@dataclass(frozen=True, slots=True)
class PeerFloated:
    """An authentic, new packet came from another endpoint; the data plane already sends there.

    If the peer moves on before this is taken, one event remains: from its first endpoint to its latest.
    """

    handle: PeerHandle
    endpoint: Endpoint
    previous: Endpoint


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """The TCP connection of an adopted stream is over; what is sent there is dropped from now on."""

    endpoint: Endpoint
    reason: StreamEnd


@dataclass(frozen=True, slots=True)
class SessionUnknown:
    """This peer's endpoint says that it does not know our session; anybody can forge that.

    A data plane that answers resets sends such notices (`bridged.protocol.packets.unknown_session`) to
    strangers whose data it cannot open: one a second for each endpoint, and a bounded number for all.
    """

    handle: PeerHandle


@dataclass(frozen=True, slots=True)
class FramingRefused:
    """An authentic payload of this peer is not framed as its settings say, and was dropped. Reported once.

    `is_compressed`: it has the mark of a compressed one.
    """

    handle: PeerHandle
    is_compressed: bool


@dataclass(frozen=True, slots=True)
class PeerExpired:
    """No authenticated packet came for `ping_restart`. Reported once."""

    handle: PeerHandle


@dataclass(frozen=True, slots=True)
class KeyNearLimit:
    """A key should be replaced: packet ids from 0xFF000000, 7/8 of the AEAD limit, or a configured limit."""

    handle: PeerHandle
    key_id: KeyId
    trigger: LimitTrigger


@dataclass(frozen=True, slots=True)
class OccReceived:
    """An authenticated OCC message, including its magic; OCC_OCTETS at most.

    What is more of the two kinds that are filled up (MTU_LOAD_REQUEST and MTU_LOAD) is left out: `left_out`
    bytes.
    """

    handle: PeerHandle
    payload: bytes
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class StationMoved:
    """A frame showed that a station is behind another port (None: the TAP).

    A few a second are reported; `station_events` has all of them.
    """

    station: Station
    previous: PeerHandle | None
    current: PeerHandle | None


@dataclass(frozen=True, slots=True)
class TapFailed:
    """The TAP vanished; traffic waits for `attach_tap`."""

    number: int
    """The errno that said so."""


DataplaneEvent = (
    ControlReceived
    | StreamClosed
    | PeerFloated
    | PeerExpired
    | SessionUnknown
    | FramingRefused
    | KeyNearLimit
    | OccReceived
    | StationMoved
    | TapFailed
)
