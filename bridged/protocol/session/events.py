"""What comes out of a session.

The owner carries events out in their order: what lets the peer open a key is sent before its first frame.

Pure: values only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bridged.protocol.keys.key_derivation import DataKey
from bridged.protocol.packets.messages import Advance
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.tls_session import TlsSummary
from bridged.units import KeyId, Seconds


@dataclass(frozen=True, slots=True)
class Identified:
    """Server: TLS is complete and the peer's certificate is valid. Its key message is still missing."""

    tls: TlsSummary
    """The TLS session, with the peer's certificate."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Server: the peer sent its key message. Answer with `admit` or `refuse`."""

    tls: TlsSummary
    """The TLS session, with the peer's certificate."""
    username: str
    """What the peer sent as user name. Empty if it sent none."""
    peer_version: str | None
    """Its IV_VER."""
    peer_platform: str | None
    """Its IV_PLAT."""
    password: str = field(default="", repr=False)
    """What the peer sent as password: nothing has checked it."""
    answers_challenges: bool = False
    """It can be asked for a one-time code, and says nothing until then."""


@dataclass(frozen=True, slots=True)
class LoginOffered:
    """Server, in a renegotiation: the peer shows its password or token again.

    Answer with `accept_login` or `reject_login`.
    """

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChallengeAnswered:
    """Server, after `challenge`: the peer's answer, as it came."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExpectKey:
    """The peer has all that it needs to seal with this key; `InstallKey` follows a round trip later."""

    key_id: KeyId
    """Of the key that is being negotiated."""


@dataclass(frozen=True, slots=True)
class InstallKey:
    """Accept data under this key from now on."""

    key: DataKey
    """Both directions; `key.key_id` names it."""


@dataclass(frozen=True, slots=True)
class UseKey:
    """Seal with this key from now on."""

    key_id: KeyId
    """An installed key."""


@dataclass(frozen=True, slots=True)
class RemoveKey:
    """This key is dead."""

    key_id: KeyId
    """An installed key."""


@dataclass(frozen=True, slots=True)
class Established:
    """Frames may flow."""

    negotiated: Negotiated
    """What both ends agreed on."""
    duration: Seconds
    """Since the session began."""


@dataclass(frozen=True, slots=True)
class Renegotiated:
    """One renegotiation is over."""

    trigger: str
    """What began it: a label of `renegotiations_total`."""
    outcome: str
    """`established`, or a handshake outcome that says what failed."""
    duration: Seconds
    """Since the renegotiation began."""
    detail: str = ""
    """What failed, in words."""
    tls: TlsSummary | None = None
    """The new TLS session; None after a failure."""


@dataclass(frozen=True, slots=True)
class SendPayload:
    """Seal and send this on the data channel."""

    payload: bytes = field(repr=False)
    """An OCC message."""


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send this control packet to the session's endpoint."""

    datagram: bytes = field(repr=False)
    """A whole UDP payload, wrapped."""


@dataclass(frozen=True, slots=True)
class SessionDown:
    """No traffic from now on. Emitted once."""

    reason: str
    """If the session was established, a reason of `peer_disconnects_total`; else a handshake outcome."""
    detail: str
    """The reason in words."""
    was_established: bool
    """Frames could flow before."""
    duration: Seconds
    """Since the session began."""
    retry_after: Seconds = Seconds(0.0)
    """The peer asks to wait this long before the next attempt."""
    advance: Advance | None = None
    """Whom the peer asks to call next: itself, the next address of its name, or another server."""
    is_final: bool = False
    """Another attempt before `retry_after` would do harm: too many wrong passwords lock an account."""
    is_handed_over: bool = False
    """The peer restarts, and its successor answers at the same endpoint within about a second."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Nothing comes out of this session any more; forget it."""


SessionEvent = (
    Identified
    | Authenticated
    | LoginOffered
    | ChallengeAnswered
    | ExpectKey
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
