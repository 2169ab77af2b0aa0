"""What comes out of a session.

Pure: values only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.tls_port import TlsSummary
from bridged.units import KeyId, Seconds


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
