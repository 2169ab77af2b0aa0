"""The contract of a data plane: what the control plane may ask, and what it hears back.

Two builds stand behind it, `portable` (pure Python) and `native` (compiled); one suite,
tests/contract, holds both to it. The verbs are those of OpenVPN's kernel offload: add, update,
remove a peer; install, use, remove a key; events up. No frame passes through the control plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from bridged.addresses import Endpoint, MacAddress
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.packets.wrap import WrapKeys
from bridged.units import KeyId, Octets, PeerHandle, Seconds, UnixSeconds, WirePeerId

Direction = Literal["receive", "transmit"]
"""`receive`: opened from the peer; `transmit`: sealed to it."""

FrameKind = Literal["unicast", "unknown_unicast", "broadcast", "multicast"]

LimitTrigger = Literal["bytes", "packets", "aead_limit"]

StationEventKind = Literal["learned", "moved", "removed"]

CoalesceKind = Literal["tcp4", "tcp6", "udp4", "udp6"]
"""What is joined into one super-frame: segments of TCP, or datagrams of UDP (USO), over IPv4 or IPv6."""

COALESCE_KINDS: Final[frozenset[CoalesceKind]] = frozenset({"tcp4", "tcp6", "udp4", "udp6"})

CONTROL_QUEUE_DATAGRAMS: Final = 2048
"""Control datagrams of peers and of handshakes that wait."""
STRANGER_QUEUE_DATAGRAMS: Final = 2048
"""Those of everybody else."""
EVENT_QUEUE_EVENTS: Final = 1024
"""At most so many events wait that may be dropped: `OccReceived` and `StationMoved`.

The others but `ControlReceived` are state, which is never dropped: an event waits once for each peer (or
key, or the TAP), and is brought up to date when it happens again before it is heard.
"""
OCC_WAITING: Final = 8
"""Of one peer's OCC messages, so many wait at most."""
OCC_OCTETS: Final = 1280
"""Of the longest OCC message that is handed up: an options string has 1024 at most."""
OCC_BURST: Final = 8
OCC_PER_SECOND: Final = 1
"""OCC messages of one peer at once, and a second after that: OpenVPN sends one in ten seconds."""


STATION_EVENTS_KEPT: Final = 4096
"""A data plane keeps this many of its latest station events for `station_events`."""


class Station(NamedTuple):
    """A MAC address in one VLAN: the key of the forwarding database.

    `vlan` is 0..4094. Today every frame belongs to VLAN 0, whatever tags it carries. `mac`: 6 octets.
    """

    vlan: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class TapPort:
    """The open TAP adapter that a data plane reads and writes; the descriptors stay the caller's.

    `virtio_header_size` is 0 (none), 10 or 12 octets; `offloads` names what the kernel accepted on it
    (`csum`, `tso4`, `tso6`, `tso_ecn`, `uso4`, `uso6`). `mtu` counts the frame's payload. `writer`: with
    several queues, one more that is out of service and takes all frames for the kernel, so that these do
    not move a flow from one queue to another (None: each worker writes to its own).
    """

    fds: tuple[int, ...]
    name: str
    mac: MacAddress
    mtu: Octets
    virtio_header_size: int = 0
    offloads: frozenset[str] = frozenset()
    writer: int | None = None


@dataclass(frozen=True, slots=True)
class DataplaneSettings:
    """What is fixed for the life of one data plane (one tunnel).

    `bind` None: an unbound socket of the family of the first destination (a client). `mss_limit` 0:
    SYN segments are left alone; else the largest MSS for IPv4 (IPv6: 20 less;
    docs/protocol/data.md#5-4). `mss_fits_path` (native only): they offer no more than one packet to the
    peer bears. `ageing` of FDB entries. `move_hold`: a station heard from a peer
    within this time is not moved to the TAP by a frame from there (it is our own frame, reflected).
    `forward_between_peers`: peers reach each other, as on one switch. `coalesce`: what may be joined into
    super-frames on the way into the TAP (portable joins TCP only; UDP also needs the TAP's `uso4`, `uso6`);
    when the TAP refuses one (EINVAL), nothing is joined any more until `attach_tap`. For native only:
    `wan_mtu`, the outer IP packet (octets) that TCP super-frames are cut for (0: what the route to the peer
    takes; portable leaves it to `mss_limit`); `workers`, 1..16 pairs of threads, each with one descriptor of
    the TAP; `busy_poll`, microseconds for which the kernel may wait at the network card; `moderation`,
    microseconds for which a receiving thread lets large packets of a fast stream gather (0: never).

    `priority`: the DSCP of outer packets is read off the frame in each (`pcp`: the priority bits of its first
    VLAN tag, mapped; `dscp`: its IP header's), and frames of DSCP 32 and above (PCP 4 to 7) that wait are
    sent first; order is kept within a DSCP. `off`: outer packets have DSCP 0, whatever is in them.
    """

    tunnel: str
    tap: TapPort
    bind: Endpoint | None
    mss_limit: int = 0
    mss_fits_path: bool = False
    ageing: Seconds = Seconds(300.0)
    move_hold: Seconds = Seconds(0.25)
    fdb_capacity: int = 100_000
    addresses_per_peer: int = 4096
    replay_window: int = 4096
    forward_between_peers: bool = True
    coalesce: frozenset[CoalesceKind] = COALESCE_KINDS
    socket_buffer: Octets = Octets(4 * 1024 * 1024)
    renegotiate_bytes: int = 0
    renegotiate_packets: int = 0
    wan_mtu: Octets = Octets(0)
    workers: int = 1
    busy_poll: int = 0
    moderation: int = 0
    priority: Literal["off", "pcp", "dscp"] = "off"


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """One peer. `name` is its authenticated name: two peers of one name may take over each other's endpoint.

    `receive_peer_id`: the DATA_V2 peer id that selects this peer (None: this is the only peer and any id
    is taken, as a client does). `transmit_peer_id`: what we write into DATA_V2 (None: send DATA_V1).
    `ping`: send one when nothing was sent for so long; `ping_restart`: report `PeerExpired` when nothing
    authenticated came for so long (None: never).
    """

    handle: PeerHandle
    name: str
    endpoint: Endpoint
    receive_peer_id: WirePeerId | None
    transmit_peer_id: WirePeerId | None
    ping: Seconds | None = None
    ping_restart: Seconds | None = None


@dataclass(frozen=True, slots=True)
class ResetAnswers:
    """What answers to hard resets take: the wrap, and a `CookieJar`'s secret and `hand_window` (seconds)."""

    wrap: WrapKeys
    cookie_secret: bytes = field(repr=False)
    hand_window: int


@dataclass(frozen=True, slots=True)
class ControlReceived:
    """A datagram with a control opcode (or an unknown one); content unchecked, from anybody."""

    datagram: bytes
    source: Endpoint


@dataclass(frozen=True, slots=True)
class PeerFloated:
    """An authenticated, not replayed packet came from a new endpoint; the data plane already sends there.

    Of a peer that moves on before this is heard there is one event: from where it was first to where it is.
    """

    handle: PeerHandle
    endpoint: Endpoint
    previous: Endpoint


@dataclass(frozen=True, slots=True)
class SessionUnknown:
    """A notice came from this peer's endpoint that it knows no session of ours; anybody can forge it.

    A data plane that answers resets sends such notices (`bridged.protocol.packets.unknown_session`) to
    strangers whose data it cannot open: at most one a second to an endpoint, and bounded for all.
    """

    handle: PeerHandle


@dataclass(frozen=True, slots=True)
class PeerExpired:
    """Nothing authenticated was received for `ping_restart`; reported once, and never lost."""

    handle: PeerHandle


@dataclass(frozen=True, slots=True)
class KeyNearLimit:
    """A key should be replaced: packet ids from 0xFF000000, 7/8 of the AEAD limit, or a configured limit."""

    handle: PeerHandle
    key_id: KeyId
    trigger: LimitTrigger


@dataclass(frozen=True, slots=True)
class OccReceived:
    """An OCC message (magic included) that authenticated, of OCC_OCTETS at most."""

    handle: PeerHandle
    payload: bytes


@dataclass(frozen=True, slots=True)
class StationMoved:
    """A station now lives behind another port (None: the TAP). At most a few a second are reported.

    `station_events` has them all.
    """

    station: Station
    previous: PeerHandle | None
    current: PeerHandle | None


@dataclass(frozen=True, slots=True)
class TapFailed:
    """The TAP cannot be read or written any more (it vanished); traffic waits for `attach_tap`."""

    number: int


Event = (
    ControlReceived
    | PeerFloated
    | PeerExpired
    | SessionUnknown
    | KeyNearLimit
    | OccReceived
    | StationMoved
    | TapFailed
)


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """Totals since the peer was added; they never fall.

    Keys: `frames`, `bytes` by (direction, kind), without FCS and overhead; `wire_*` by direction, outer
    UDP payload; `drops` by (direction, reason), reasons of docs/reference/metrics.md.
    """

    frames: Mapping[tuple[Direction, FrameKind], int] = field(default_factory=dict)
    bytes: Mapping[tuple[Direction, FrameKind], int] = field(default_factory=dict)
    wire_bytes: Mapping[Direction, int] = field(default_factory=dict)
    wire_datagrams: Mapping[Direction, int] = field(default_factory=dict)
    drops: Mapping[tuple[Direction, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """One peer now. `last_seen`: the newest authenticated packet (None: none yet). Ratios are 0..1."""

    handle: PeerHandle
    endpoint: Endpoint
    counters: PeerCounters
    last_seen: UnixSeconds | None = None
    fdb_entries: int = 0
    packet_id_used_ratio: float = 0.0
    aead_used_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` observations in (`bounds[i-1]`, `bounds[i]`], the last one above all; `total` sums them."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class DataplaneSnapshot:
    """All figures of one data plane at one moment; taking it never blocks traffic.

    `drops`: by (direction, reason), those of no peer included. `fdb_changes`: `learned`, `aged`, `moved`,
    `flushed`, `refused`. `offloads`: `tap_vnet`, `tap_tso`, `tap_uso`, `udp_gso`, `udp_gro`, `udp_steering`
    (several sockets share the peers by id), `coalesce`.
    `offload_fallbacks`: by (offload, cause). `kernel_drops`: `tap_txqueue`, `udp_receive_buffer`.
    `queues`: name -> (depth, capacity). `thread_cpu`: seconds by thread name.
    """

    dataplane: str
    aead: str
    workers: int
    peers: tuple[PeerSnapshot, ...]
    drops: Mapping[tuple[Direction, str], int]
    fdb_entries: int
    fdb_capacity: int
    fdb_changes: Mapping[str, int]
    offloads: Mapping[str, bool]
    offload_fallbacks: Mapping[tuple[str, str], int]
    mtu_events: Mapping[str, int]
    kernel_drops: Mapping[str, int]
    queues: Mapping[str, tuple[int, int]]
    histograms: Mapping[str, Histogram]
    thread_cpu: Mapping[str, float]


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


class DataPlane(Protocol):
    """One tunnel's frames. All methods are called from the control plane's thread and return at once.

    Raises:
        DataplaneError: `unknown_peer`, `unknown_key`, `duplicate_peer`; from `start`, `bind_failed` with the
            endpoint and the reason; from `install_station`, `bad_station` and `fdb_full`.
    """

    name: str

    def start(self) -> None:
        """Open the UDP socket and begin; frames flow once a peer has a key in use."""

    def stop(self) -> None:
        """End the threads, close the socket, zeroise all keys. Idempotent."""

    @property
    def local_endpoint(self) -> Endpoint | None:
        """Where the socket is bound (None before `start`, or before an unbound socket has sent)."""

    def attach_tap(self, tap: TapPort) -> None:
        """Go on with this adapter instead of the present one; frames in between are lost and counted."""

    def use_socket(self, descriptor: int | None) -> None:
        """Send and receive through this UDP socket, which the caller has opened (None: through none).

        The data plane duplicates the descriptor and sets the options that it needs, UDP_GRO among them. The
        caller must not read from the socket meanwhile. For a client, before `add_peer`: peers that are there
        already keep an address of the family of the socket before.

        Raises:
            DataplaneError: `system`: it cannot be used.
        """

    def use_sizes(self, wan_mtu: int, mss_limit: int) -> None:
        """Fit TCP to these sizes (octets) from now on; see `DataplaneSettings`.

        For a client, before `add_peer`: peers that are there already keep the MTU of their path.

        Raises:
            DataplaneError: `bad_setting`.
        """

    def add_peer(self, peer: PeerSettings) -> None: ...

    def update_peer(
        self,
        handle: PeerHandle,
        *,
        ping: Seconds | None,
        ping_restart: Seconds | None,
        receive_peer_id: WirePeerId | None,
        transmit_peer_id: WirePeerId | None,
    ) -> None:
        """Replace what negotiation has settled; timers start anew."""

    def remove_peer(self, handle: PeerHandle) -> PeerSnapshot:
        """Forget the peer, its keys (zeroised) and its addresses; the last figures come back."""

    def install_key(self, handle: PeerHandle, key: DataKey) -> None:
        """Accept packets under this key from now on. The data plane owns the key and zeroises it later.

        A key of the same key id is replaced.
        """

    def use_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        """Seal with this key from the next frame on."""

    def remove_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        """Forget a key; unknown ones are ignored (it may have gone with its peer)."""

    def answer_resets(self, answers: ResetAnswers | None) -> None:
        """Answer hard resets of strangers from now on (None: no more), as `Listener` would.

        Other packets of strangers are handed up only where they bring a cookie back, or did so before; of the
        rest a few a second, so that the control plane can say what is wrong with them.
        """

    def expect(self, endpoint: Endpoint) -> None:
        """A session begins its handshake there: its packets are not a stranger's. Calls are counted."""

    def stop_expecting(self, endpoint: Endpoint) -> None:
        """That session is over; harmless where there is none."""

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        """Send a control packet; a full socket drops it, counted (the reliability layer repeats it)."""

    def send_payload(self, handle: PeerHandle, payload: bytes) -> None:
        """Seal and send something that is not a frame (ping, OCC); ignored while no key is in use."""

    def event_fd(self) -> int:
        """Readable while events wait."""

    def poll_events(self, limit: int = 256) -> list[Event]:
        """Take up to `limit` events, oldest first; never blocks."""

    def snapshot(self) -> DataplaneSnapshot: ...

    def fdb(self) -> list[FdbEntry]:
        """All stations that have not aged: a copy of the whole table, for people rather than watchers."""

    def find_station(self, station: Station) -> FdbEntry | None:
        """Where a station is; None where it is unknown or has aged."""

    def install_station(self, station: Station, handle: PeerHandle | None, *, is_static: bool) -> None:
        """Put a station behind a peer (None: behind the TAP), as if it had just been heard there.

        It replaces what was known of the station. A static one neither ages nor moves: frames with its
        address from elsewhere are dropped (`loop_guard`). It goes with its peer or by `remove_station`.
        It counts towards `fdb_capacity`, but no peer's limit applies.

        Raises:
            DataplaneError: `unknown_peer`; `bad_station`: a group address, all zero, not 6 octets, or a
                VLAN other than 0; `fdb_full`: there is no room for a new one.
        """

    def remove_station(self, station: Station) -> None:
        """Forget a station, installed or learned; unknown ones are ignored (it may have aged)."""

    def station_events(self, after: int) -> StationEvents:
        """Changes of the FDB since the call that returned `after` as `next` (0: since the start).

        The latest STATION_EVENTS_KEPT are kept, for however many readers; reading takes nothing away.
        """
