"""The contract of a data plane: what the control plane may ask, and what it hears back.

Two builds implement it, `portable` (pure Python) and `native` (compiled); tests/contract holds both to it.
Its verbs are those of OpenVPN's kernel offload (add and remove a peer; install, use and remove a key;
events), and those of a forwarding database. No frame passes through the control plane. Import from here.
"""

from bridged.dataplane.contract.events import (
    ControlReceived,
    DataplaneEvent,
    FramingRefused,
    KeyNearLimit,
    LimitTrigger,
    OccReceived,
    PeerExpired,
    PeerFloated,
    SessionUnknown,
    StationMoved,
    StreamClosed,
    StreamEnd,
    TapFailed,
)
from bridged.dataplane.contract.limits import (
    CONTROL_QUEUE_DATAGRAMS,
    EARLY_LEAST_OCTETS,
    EARLY_OCTETS,
    EARLY_SECONDS,
    EVENT_QUEUE_EVENTS,
    OCC_BURST,
    OCC_OCTETS,
    OCC_PER_SECOND,
    OCC_WAITING,
    STATION_EVENTS_KEPT,
    STRANGER_QUEUE_DATAGRAMS,
    STREAM_CONTROL_OCTETS,
    STREAM_LINGER_SECONDS,
    STREAM_QUEUE_OCTETS,
    STREAMS_LINGERING,
)
from bridged.dataplane.contract.settings import DataplaneSettings, PeerSettings, ResetAnswers, TapPort
from bridged.dataplane.contract.snapshots import (
    DataplaneSnapshot,
    Direction,
    FrameKind,
    Histogram,
    PeerCounters,
    PeerSnapshot,
)
from bridged.dataplane.contract.stations import (
    FdbEntry,
    Station,
    StationEvent,
    StationEventKind,
    StationEvents,
)
from bridged.dataplane.contract.verbs import DataPlane

__all__ = [
    "CONTROL_QUEUE_DATAGRAMS",
    "EARLY_LEAST_OCTETS",
    "EARLY_OCTETS",
    "EARLY_SECONDS",
    "EVENT_QUEUE_EVENTS",
    "OCC_BURST",
    "OCC_OCTETS",
    "OCC_PER_SECOND",
    "OCC_WAITING",
    "STATION_EVENTS_KEPT",
    "STRANGER_QUEUE_DATAGRAMS",
    "STREAMS_LINGERING",
    "STREAM_CONTROL_OCTETS",
    "STREAM_LINGER_SECONDS",
    "STREAM_QUEUE_OCTETS",
    "ControlReceived",
    "DataPlane",
    "DataplaneEvent",
    "DataplaneSettings",
    "DataplaneSnapshot",
    "Direction",
    "FdbEntry",
    "FrameKind",
    "FramingRefused",
    "Histogram",
    "KeyNearLimit",
    "LimitTrigger",
    "OccReceived",
    "PeerCounters",
    "PeerExpired",
    "PeerFloated",
    "PeerSettings",
    "PeerSnapshot",
    "ResetAnswers",
    "SessionUnknown",
    "Station",
    "StationEvent",
    "StationEventKind",
    "StationEvents",
    "StationMoved",
    "StreamClosed",
    "StreamEnd",
    "TapFailed",
    "TapPort",
]
