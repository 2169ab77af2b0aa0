"""What the control plane passes to a data plane."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridged.addresses import Endpoint, MacAddress
from bridged.catalogue.settings import Tuning
from bridged.errors import DataplaneError
from bridged.protocol.packets.fragments import FRAGMENT_LEAST
from bridged.protocol.packets.framing import ADDED_MOST, Framing
from bridged.protocol.packets.wrap import WrapKeys
from bridged.units import Octets, PeerHandle, Seconds, WirePeerId


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
    """One peer.

    Raises:
        DataplaneError: `bad_setting`, a framing that is none of `Framing`, or a size that is no size.
    """

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
    framing: Framing = "none"
    """How payloads are framed, both ways; for the life of the peer."""
    fragment: Octets = Octets(0)
    """Bytes of the largest packet; what needs more is cut, and joined at the other end. 0: neither."""

    def __post_init__(self) -> None:
        if self.framing not in ADDED_MOST:
            raise DataplaneError("bad_setting", f"framing: {self.framing!r} is unknown")
        if self.fragment and not FRAGMENT_LEAST <= self.fragment <= 65535:
            raise DataplaneError(
                "bad_setting", f"fragment: {self.fragment} is not in {FRAGMENT_LEAST}..65535"
            )


@dataclass(frozen=True, slots=True)
class ResetAnswers:
    """What answers to hard resets need: the wrap, and the secret and `hand_window` (s) of a `CookieJar`."""

    wrap: WrapKeys
    cookie_secret: bytes = field(repr=False)
    hand_window: int
