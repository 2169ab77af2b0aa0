"""The path to a peer, and the seam between forwarding and whatever carries its packets.

Forwarding and batching see a path and its `Carrier`, and know no socket. Who a peer is (handle, peer id,
keys) does not depend on its path: a float gives the same peer another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from bridged.addresses import Endpoint
from bridged.dataplane.portable.transport.control_messages import AncillaryItem
from bridged.socket_addresses import SockAddress, StreamAddress

MAX_DATAGRAM_OCTETS: Final = 65535

PeerAddress = SockAddress | StreamAddress


@dataclass(slots=True)
class Path:
    """Where a peer is, as the transport names it, what carries packets there, and what the path takes.

    `pinned_source`: the local address to answer from, as a control message (None: the kernel's choice).
    Packets above `segment_limit` bytes are not sent in batches before `retry_at` (monotonic seconds).
    """

    address: PeerAddress
    carrier: Carrier
    pinned_source: AncillaryItem | None = None
    segment_limit: int = MAX_DATAGRAM_OCTETS
    retry_at: float = 0.0


Received = tuple[bytes, int, PeerAddress, AncillaryItem | None]
"""One read: bytes, size, source, pinned source of the answer.

The bytes are packets of `size` each (the last may be shorter), end to end.
"""


class Carrier(Protocol):
    """Sends packets along paths. Nothing that the network does raises; losses are counted."""

    is_stream: bool
    """Packets stay in order, and must not be left out once they have their ids: ask `fitting` before."""

    def fitting(self, frames: Sequence[bytes], overhead: int) -> int:
        """How many of these frames there is room for; each becomes a packet with `overhead` bytes more."""

    def send(self, packets: Sequence[bytes], path: Path, now: float, octet: int = 0) -> int:
        """Send packets to one peer in order; returns how many bytes were taken.

        `octet`: traffic class (TOS) of the outer IP headers.
        """

    def send_one(self, packet: bytes, path: Path) -> int:
        """`send` for one packet of traffic class 0."""


class Transport(Carrier, Protocol):
    """A carrier of datagrams, which also receives them.

    `before_close` is called before the descriptor of `fileno` is closed.
    """

    before_close: Callable[[], None]

    def fileno(self) -> int:
        """A descriptor that is readable while packets wait; -1: there is none now."""

    def path(self, endpoint: Endpoint) -> Path:
        """The path to an endpoint, from the local address that it last wrote to.

        Raises:
            OSError: it cannot be reached by this transport.
        """

    def remember_source(self, received: Received) -> None:
        """Answer this source, which is no peer yet, from the local address that it wrote to."""

    def receive(self) -> Received | None:
        """The next packets of one source, or None if none wait."""

    def send_to(self, datagram: bytes, endpoint: Endpoint) -> None:
        """Send one control packet."""
