"""What a tunnel asks of its role. The roles are `client.client.ClientRole` and `server.server.ServerRole`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from bridged.addresses import Endpoint
from bridged.runtime.tunnels.link import News, PeerLink
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.runtime.tunnels.sessions import Sessions
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan


class TunnelRole(Protocol):
    """One side of the protocol at work. The tunnel drives it in the event loop, in this order:

    `open`, `start`, any number of the others, `stop`, `hand_over` if a successor continues, `close`.
    """

    name: str

    @property
    def state(self) -> str:
        """A word for people; see `TunnelStatus`."""

    @property
    def remote(self) -> str | None:
        """The server that a client called last."""

    @property
    def admission(self) -> Mapping[str, int]:
        """Unfinished handshakes now, by stage; see `TunnelStatus`. Empty for a client."""

    def open(self) -> int:
        """Get what is needed before the data plane starts. Returns how many peers come back after a restart.

        Raises:
            DataplaneError: `bind_failed`.
        """

    def start(self) -> None:
        """The data plane runs: begin."""

    async def stop(self) -> None:
        """Begin nothing new; the tunnel ends the sessions next."""

    def hand_over(self) -> None:
        """Keep what a successor needs to bring the peers back soon."""

    def close(self) -> None:
        """All sessions have ended and the data plane has stopped: release everything."""

    def apply(self, plan: TunnelPlan) -> None:
        """Use another plan from now on."""

    def handle_network_change(self) -> None:
        """Addresses, routes or links of this host changed."""

    def handle_clock_step(self) -> None:
        """The wall clock was set, or the machine woke up."""

    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        """A control packet from anybody.

        Raises:
            RemoteProtocolError: it is to be dropped and counted.
        """

    def handle_unknown(self, link: PeerLink) -> None:
        """Somebody claims that the peer does not know this session."""

    @property
    def tcp_endpoints(self) -> tuple[Endpoint, ...]:
        """Where a server listens for TCP."""

    def handle_stream_closed(self, endpoint: Endpoint) -> None:
        """A TCP connection of the data plane is over; its sessions have ended."""

    def handle_floated(self, link: PeerLink, previous: Endpoint) -> None:
        """The peer moved from `previous` to the link's endpoint."""

    def handle_news(self, link: PeerLink, news: News) -> None:
        """News of a session, after the tunnel has recorded it."""


RoleMaker: TypeAlias = Callable[[Sessions, PeerRecords], TunnelRole]
"""Makes the role of one tunnel from what the two share."""
