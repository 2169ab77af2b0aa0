"""What goes into a session and what comes out of it: settings, states, events.

Source: docs/protocol/control.md#4 to #9; its states: docs/state-machines.md.
Pure: values only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.role import Role
from bridged.protocol.session.tls_port import TlsSummary
from bridged.units import KeyId, MonotonicSeconds, Seconds, WirePeerId


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What is fixed for all sessions of one tunnel end.

    Times in seconds. `digest` is `auth`; `wrap_key` and `wrap_direction` are those of tls-auth or tls-crypt
    (they show in the options string and feed dynamic tls-crypt). `use_exporter` False: the PRF, and
    nothing that needs the exporter is announced. `push`: further options of a server, as OpenVPN writes
    them. `ping`, `ping_restart`: pushed by a server to its clients. `version`: announced as IV_VER.
    `reneg_seconds` 0: never by time.
    """

    role: Role
    ciphers: tuple[Cipher, ...]
    tun_mtu: int = 1500
    digest: str = "SHA1"
    wrap_name: str = "none"
    wrap_key: StaticKey | None = None
    wrap_direction: int | None = None
    use_exporter: bool = True
    tls_timeout: float = 2.0
    tls_mtu: int = 1250
    hand_window: float = 60.0
    tran_window: float = 3600.0
    reneg_seconds: float = 3600.0
    ping: int = 0
    ping_restart: int = 0
    push: tuple[str, ...] = ()
    version: str = "bridged"
    platform: str = "linux"


class SessionState(Enum):
    """Where one session is. `DRAINING`: no traffic any more, last control packets still repeated."""

    HANDSHAKE = "handshake"
    ESTABLISHED = "established"
    DRAINING = "draining"
    CLOSED = "closed"


class Proof(IntEnum):
    """What a server's peer has proved: that it is where it says, that it speaks TLS, who it is."""

    COOKIE = 0
    TLS = 1
    CERTIFICATE = 2


class SessionInput(Enum):
    """What moves a session from one state to another."""

    KEYS_READY = "keys ready"
    FAILED = "failed"
    PEER_LEFT = "peer left"
    CLOSE_REQUESTED = "close requested"
    DRAINED = "drained"


TRANSITIONS: Final[dict[tuple[SessionState, SessionInput], SessionState]] = {
    (SessionState.HANDSHAKE, SessionInput.KEYS_READY): SessionState.ESTABLISHED,
    (SessionState.HANDSHAKE, SessionInput.FAILED): SessionState.DRAINING,
    (SessionState.HANDSHAKE, SessionInput.PEER_LEFT): SessionState.DRAINING,
    (SessionState.HANDSHAKE, SessionInput.CLOSE_REQUESTED): SessionState.DRAINING,
    (SessionState.ESTABLISHED, SessionInput.FAILED): SessionState.DRAINING,
    (SessionState.ESTABLISHED, SessionInput.PEER_LEFT): SessionState.DRAINING,
    (SessionState.ESTABLISHED, SessionInput.CLOSE_REQUESTED): SessionState.DRAINING,
    (SessionState.DRAINING, SessionInput.DRAINED): SessionState.CLOSED,
}


UNASKED_PASSWORD: Final = (
    "it sends a user name and password, and nobody asks for one here: its certificate alone let it in; "
    "remove `auth-user-pass` there"
)


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both ends agreed on, once per session.

    `transmit_peer_id` None: DATA_V1. `ping`, `ping_restart` in seconds (0: off) for this end.
    `ignored`: pushed options that have no meaning here. `warnings`: options-string differences.
    `has_unasked_password`: the client sent a user name or a password, and nobody looked at it.
    """

    cipher: Cipher
    transmit_peer_id: WirePeerId | None
    ping: int
    ping_restart: int
    tun_mtu: int
    key_derivation: str
    exit_by_control: bool
    dynamic_wrap: bool
    tls: TlsSummary
    peer_version: str | None = None
    peer_platform: str | None = None
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    has_unasked_password: bool = False

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is odd about this session, in words."""
        differences = tuple(f"options differ: {text}" for text in self.warnings)
        return (UNASKED_PASSWORD, *differences) if self.has_unasked_password else differences


@dataclass(frozen=True, slots=True)
class Identified:
    """Server: TLS is complete and the peer's certificate good; whether it may come in is not settled yet."""

    tls: TlsSummary


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Server: a peer proved who it is; answer with `admit` or `refuse` before going on."""

    tls: TlsSummary
    username: str
    peer_version: str | None
    peer_platform: str | None


@dataclass(frozen=True, slots=True)
class InstallKey:
    """Accept data under this key from now on."""

    key: DataKey


@dataclass(frozen=True, slots=True)
class UseKey:
    """Seal with this key from now on."""

    key_id: KeyId


@dataclass(frozen=True, slots=True)
class RemoveKey:
    """This key is dead."""

    key_id: KeyId


@dataclass(frozen=True, slots=True)
class Established:
    """Frames may flow. `duration` since the session began."""

    negotiated: Negotiated
    duration: Seconds


@dataclass(frozen=True, slots=True)
class Renegotiated:
    """One renegotiation is over; `outcome` as for handshakes, `established` being good."""

    trigger: str
    outcome: str
    duration: Seconds
    detail: str = ""
    tls: TlsSummary | None = None


@dataclass(frozen=True, slots=True)
class SendPayload:
    """Seal and send this on the data channel (an OCC message)."""

    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send this control packet to the session's endpoint."""

    datagram: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionDown:
    """No traffic from now on. Said once.

    `reason`: a handshake outcome where the session never was established, else a reason of
    `peer_disconnects_total`. `retry_after`: the peer asks to wait so many seconds.
    """

    reason: str
    detail: str
    was_established: bool
    duration: Seconds
    retry_after: Seconds = Seconds(0.0)
    next_remote: bool = False


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Nothing will come out of this session any more; forget it."""


Event = (
    Identified
    | Authenticated
    | InstallKey
    | UseKey
    | RemoveKey
    | Established
    | Renegotiated
    | SendPayload
    | SendDatagram
    | SessionDown
    | SessionEnded
)


@dataclass(frozen=True, slots=True)
class Deadline:
    """When `handle_timeout` wants to be called next, and why."""

    at: MonotonicSeconds
    reason: str
