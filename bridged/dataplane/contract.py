"""The contract of a data plane: what the control plane may ask, and what it hears back.

Two builds implement it, `portable` (pure Python) and `native` (compiled); tests/contract holds both to it.
Its verbs are those of OpenVPN's kernel offload (add and remove a peer; install, use and remove a key;
events), and those of a forwarding database. No frame passes through the control plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from bridged.addresses import Endpoint, MacAddress
from bridged.catalogue.settings import Tuning
from bridged.errors import DataplaneError
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.packets.wrap import WrapKeys
from bridged.units import KeyId, Octets, PeerHandle, Seconds, UnixSeconds, WirePeerId

Direction = Literal["receive", "transmit"]
"""`receive`: decrypted from a peer; `transmit`: encrypted for a peer."""

FrameKind = Literal["unicast", "unknown_unicast", "broadcast", "multicast"]

LimitTrigger = Literal["bytes", "packets", "aead_limit"]

StationEventKind = Literal["learned", "moved", "removed"]

CONTROL_QUEUE_DATAGRAMS: Final = 2048
"""How many control datagrams of peers and of handshakes can wait."""
STRANGER_QUEUE_DATAGRAMS: Final = 2048
"""How many control datagrams of everybody else can wait."""
EVENT_QUEUE_EVENTS: Final = 1024
"""How many events can wait of the kinds that may be dropped: `OccReceived` and `StationMoved`.

`ControlReceived` has queues of its own. The other kinds are state and never dropped: one event waits for each
peer (or key, or the TAP), and is updated if it happens again before it is taken.
"""
OCC_WAITING: Final = 8
"""How many OCC messages of one peer can wait."""
OCC_OCTETS: Final = 1280
"""Bytes of the longest OCC message that is handed up; an options string has 1024 at most."""
OCC_BURST: Final = 8
"""OCC messages that one peer may send at once."""
OCC_PER_SECOND: Final = 1
"""OCC messages that one peer may send in the long run; OpenVPN sends one in ten seconds."""

EARLY_OCTETS: Final = 256 * 1024
"""Bytes of packets that one peer may have waiting for a key (`expect_key`)."""
EARLY_LEAST_OCTETS: Final = 256
"""What packets of one read count at least: keeping them costs as much, however short they are."""
EARLY_SECONDS: Final = 1.0
"""Packets that waited longer for their key are dropped."""

STATION_EVENTS_KEPT: Final = 4096
"""How many of the latest station events are kept for `station_events`."""


class Station(NamedTuple):
    """A MAC address in one VLAN: the key of the forwarding database.

    `vlan` is 0..4094. Today every frame belongs to VLAN 0, with or without tags. `mac`: 6 bytes.
    """

    vlan: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class TapPort:
    """The open TAP adapter that a data plane reads and writes; the descriptors stay the caller's."""

    fds: tuple[int, ...]
    """One descriptor for each queue."""
    name: str
    mac: MacAddress
    mtu: Octets
    """Bytes of a frame's payload."""
    virtio_header_size: int = 0
    """Bytes of the virtio-net header: 0 (none), 10 or 12."""
    offloads: frozenset[str] = frozenset()
    """What the kernel accepted: of `csum`, `tso4`, `tso6`, `tso_ecn`, `uso4`, `uso6`."""
    writer: int | None = None
    """With several queues: one more, out of service, that takes all frames for the kernel.

    What is written to a queue in service moves its flow there (None: each worker writes to its own queue).
    """


@dataclass(frozen=True, slots=True)
class DataplaneSettings(Tuning):
    """What is fixed for the life of one data plane (one tunnel): this, and all of `Tuning`.

    Raises:
        DataplaneError: `bad_setting`, a value out of range.
    """

    tunnel: str
    tap: TapPort
    bind: Endpoint | None
    """Where to listen (None: an unbound socket of the family of the first destination, as a client has)."""

    def __post_init__(self) -> None:
        if problems := list(self.problems()):
            raise DataplaneError("bad_setting", "; ".join(problems))


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """One peer."""

    handle: PeerHandle
    name: str
    """Its authenticated name. Peers of one name may take over each other's endpoint."""
    endpoint: Endpoint
    receive_peer_id: WirePeerId | None
    """The DATA_V2 peer id that selects this peer (None: any id, as for a client's only peer)."""
    transmit_peer_id: WirePeerId | None
    """The peer id that we write into DATA_V2 (None: send DATA_V1)."""
    ping: Seconds | None = None
    """Ping after this long without sending anything (None: never)."""
    ping_restart: Seconds | None = None
    """Report `PeerExpired` after this long without an authenticated packet (None: never)."""


@dataclass(frozen=True, slots=True)
class ResetAnswers:
    """What answers to hard resets need: the wrap, and the secret and `hand_window` (s) of a `CookieJar`."""

    wrap: WrapKeys
    cookie_secret: bytes = field(repr=False)
    hand_window: int


@dataclass(frozen=True, slots=True)
class ControlReceived:
    """A datagram with a control opcode, or an unknown one. Anybody can send it; nothing in it is checked."""

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
class SessionUnknown:
    """This peer's endpoint says that it does not know our session; anybody can forge that.

    A data plane that answers resets sends such notices (`bridged.protocol.packets.unknown_session`) to
    strangers whose data it cannot open: one a second for each endpoint, and a bounded number for all.
    """

    handle: PeerHandle


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
    """An authenticated OCC message, including its magic; OCC_OCTETS at most."""

    handle: PeerHandle
    payload: bytes


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
    """Totals of one peer since it was added. They never fall."""

    frames: Mapping[tuple[Direction, FrameKind], int] = field(default_factory=dict)
    bytes: Mapping[tuple[Direction, FrameKind], int] = field(default_factory=dict)
    """Bytes of frames, without FCS and tunnel overhead."""
    wire_bytes: Mapping[Direction, int] = field(default_factory=dict)
    """Bytes of outer UDP payload."""
    wire_datagrams: Mapping[Direction, int] = field(default_factory=dict)
    sequence: Mapping[str, int] = field(default_factory=dict)
    """`skipped`: packet ids of the peer that were jumped over; `late`: packets that came after all."""
    drops: Mapping[tuple[Direction, str], int] = field(default_factory=dict)
    """By reason, as docs/reference/metrics.md lists them."""


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """One peer at one moment. Ratios are 0..1, of the most worn key."""

    handle: PeerHandle
    endpoint: Endpoint
    counters: PeerCounters
    last_seen: UnixSeconds | None = None
    """When the newest authenticated packet came (None: none yet)."""
    fdb_entries: int = 0
    packet_id_used_ratio: float = 0.0
    aead_used_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` observations lie in (`bounds[i-1]`, `bounds[i]`], the last count is of all above.

    `total` is the sum of all observed values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class DataplaneSnapshot:
    """All figures of one data plane at one moment. Taking it never blocks traffic."""

    dataplane: str
    aead: str
    """The cipher of the latest key; empty: there was none."""
    workers: int
    peers: tuple[PeerSnapshot, ...]
    drops: Mapping[tuple[Direction, str], int]
    """By direction and reason, including those of no peer."""
    fdb_entries: int
    fdb_capacity: int
    counts: Mapping[str, Mapping[str, int]]
    """Totals by family and name; all that this build counts are there (bridged/catalogue/counters.py)."""
    offloads: Mapping[str, bool]
    """By name; all of bridged/catalogue/figures.py are there."""
    offload_fallbacks: Mapping[tuple[str, str], int]
    """By offload and cause."""
    queues: Mapping[str, tuple[int, int]]
    """Depth and capacity by name; all that this build has are there, as of the histograms."""
    histograms: Mapping[str, Histogram]
    thread_cpu: Mapping[str, float]
    """Processor seconds by thread name."""


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
        DataplaneError: `unknown_peer` from all methods with a handle but `remove_key`; other codes where a
            method says so.
    """

    name: str

    def start(self) -> None:
        """Open the UDP socket, if it has a place to bind to, and begin.

        Frames flow once a peer has a key in use.

        Raises:
            DataplaneError: `bind_failed`, with the endpoint and the reason.
        """

    def stop(self) -> None:
        """End the threads, close the socket, zeroise all keys. Idempotent."""

    @property
    def local_endpoint(self) -> Endpoint | None:
        """Where the socket is bound (None before `start`, or before an unbound socket has sent)."""

    def attach_tap(self, tap: TapPort) -> None:
        """Replace the adapter; frames in between are lost and counted."""

    def use_socket(self, descriptor: int | None) -> None:
        """Send and receive through this UDP socket, which the caller has opened (None: through none).

        The data plane duplicates the descriptor and sets the options that it needs, UDP_GRO among them. The
        caller must not read from the socket meanwhile. Clients call this before `add_peer`: older peers keep
        an address of the old socket's family.

        Raises:
            DataplaneError: `system`: it cannot be used.
        """

    def inherit_sockets(self, descriptors: Sequence[int]) -> None:
        """Have `start` use these bound sockets, one for each worker, instead of binding new ones.

        The data plane duplicates the descriptors. The caller has compared their address with `bind`.

        Raises:
            DataplaneError: `bad_setting`: another number of sockets; `system`: they cannot be used.
        """

    def socket_descriptors(self) -> tuple[int, ...]:
        """The sockets in use, for `inherit_sockets` of a successor; they stay the data plane's."""

    def hold(self, *, lan: bool, wan: bool) -> None:
        """Leave frames in the adapter, and datagrams in the socket, or read them again.

        The kernel keeps as many as its queues take, and drops the rest. Sending goes on. A vanished adapter
        may not be noticed before frames are read again.
        """

    def ask_threads(self) -> None:
        """Ask every thread for a sign of life. Under load, too, the answer comes with its next turn."""

    def silent_threads(self) -> tuple[str, ...]:
        """Names of the threads that have not answered the latest `ask_threads`."""

    def use_sizes(self, wan_mtu: int, mss_limit: int) -> None:
        """Fit TCP to these sizes (bytes) from now on; see `DataplaneSettings`.

        Clients call this before `add_peer`: peers added before keep the MTU of their path.

        Raises:
            DataplaneError: `bad_setting`.
        """

    def add_peer(self, peer: PeerSettings) -> None:
        """Add a peer. It receives and sends nothing before a key is installed and in use.

        Raises:
            DataplaneError: `duplicate_peer`: its handle or `receive_peer_id` is in use; `bind_failed`: no
                socket can reach it.
        """

    def remove_peer(self, handle: PeerHandle) -> PeerSnapshot:
        """Forget the peer, its keys (zeroised) and its stations; returns its last figures."""

    def expect_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        """The peer may seal with this key before `install_key`.

        Packets under it that come from the peer's endpoint wait for `install_key`: EARLY_OCTETS at most, for
        EARLY_SECONDS at most. The rest count as `unknown_key_id`. One key of a peer is expected at a time.
        """

    def install_key(self, handle: PeerHandle, key: DataKey) -> None:
        """Accept packets under this key from now on. The data plane owns the key and zeroises it later.

        A key of the same key id is replaced.
        """

    def use_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        """Encrypt with this key from the next frame on.

        Raises:
            DataplaneError: `unknown_key`.
        """

    def remove_key(self, handle: PeerHandle, key_id: KeyId) -> None:
        """Forget a key (zeroised). Unknown peers and keys are ignored: it may have gone with its peer."""

    def answer_resets(self, answers: ResetAnswers | None) -> None:
        """Answer hard resets of strangers from now on, as `Listener` would (None: stop answering).

        Other packets of strangers are handed up if they bring a cookie back, or did so before. Of the rest a
        few a second are handed up: the control plane logs what is wrong with them.
        """

    def expect(self, endpoint: Endpoint) -> None:
        """A session begins its handshake there: its packets are not a stranger's.

        Calls add up; each needs its `stop_expecting`.
        """

    def stop_expecting(self, endpoint: Endpoint) -> None:
        """That session is over; ignored if there is none."""

    def send_control(self, datagram: bytes, destination: Endpoint) -> None:
        """Send a control packet. If the socket is full it is dropped and counted: the session repeats it."""

    def send_payload(self, handle: PeerHandle, payload: bytes) -> None:
        """Encrypt and send what is no frame (ping, OCC); ignored while the peer has no key in use."""

    def event_fd(self) -> int:
        """A descriptor that is readable while events wait; it stays the data plane's."""

    def poll_events(self, limit: int = 256) -> list[DataplaneEvent]:
        """Take up to `limit` events, oldest first; never blocks. `ControlReceived` come behind the others."""

    def snapshot(self) -> DataplaneSnapshot:
        """All figures now."""

    def fdb(self) -> list[FdbEntry]:
        """All stations that have not aged: a copy of the whole table. Programs use `station_events`."""

    def find_station(self, station: Station) -> FdbEntry | None:
        """Where a station is; None if it is unknown or has aged."""

    def install_station(self, station: Station, handle: PeerHandle | None, *, is_static: bool) -> None:
        """Put a station behind a peer (None: behind the TAP), as if it had just been heard there.

        It replaces what was known of the station. A static one neither ages nor moves: frames with its
        address from elsewhere are dropped (`loop_guard`). It goes with its peer or by `remove_station`.
        It counts towards `fdb_capacity`, but no peer's limit applies.

        Raises:
            DataplaneError: `unknown_peer`; `bad_station`: a group address, all zero, not 6 bytes, or a
                VLAN other than 0; `fdb_full`: there is no room for a new one.
        """

    def remove_station(self, station: Station) -> None:
        """Forget a station, installed or learned; unknown ones are ignored (it may have aged)."""

    def station_events(self, after: int) -> StationEvents:
        """Changes of the FDB since the call that returned `after` as `next` (0: since the start).

        The latest STATION_EVENTS_KEPT are kept, for however many readers; reading takes nothing away.
        """
