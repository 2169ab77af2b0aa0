"""The role of an end with a static key that waits: its peer is whoever sends an authentic packet.

Source: docs/protocol/data.md#2-4; docs/decisions/0091.
The other end, which calls, is a `ClientRole`: its session is established at once.
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.key_derivation import static_data_key
from bridged.protocol.packets.cbc_packet import CbcHmac
from bridged.protocol.packets.static_packet import open_static
from bridged.runtime.tunnels.link import News, PeerLink
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.runtime.tunnels.replay_mark import mark_of
from bridged.runtime.tunnels.sessions import Sessions
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan

_NO_SESSION: Final = b"\0" * 8


class ListeningRole:
    """Gives the first authentic sender the tunnel. Its packet was only a knock: what follows is carried.

    None that came before opens a session again (`ReplayMark`).
    """

    name = "server"
    remote = None

    def __init__(self, sessions: Sessions, records: PeerRecords) -> None:
        self._sessions = sessions
        settings = sessions.plan.session
        assert settings.wrap_key is not None
        key = static_data_key(
            settings.wrap_key, settings.wrap_direction, settings.ciphers[0], settings.digest, 0
        )
        self._opener = CbcHmac(key.receive_key, settings.digest, key.receive_hmac)
        key.zeroise()

    @property
    def state(self) -> str:
        return "listening"

    @property
    def admission(self) -> dict[str, int]:
        return {}

    # --- life -------------------------------------------------------------------------------------

    def open(self) -> int:
        return 0

    def start(self) -> None:
        """The peer begins."""

    async def stop(self) -> None:
        """Nothing of its own runs."""

    def hand_over(self) -> None:
        """The peer goes on sending, and finds the successor."""

    def close(self) -> None:
        """Nothing is held."""

    def apply(self, plan: TunnelPlan) -> None:
        """Nothing here depends on what can change without a restart."""

    def handle_network_change(self) -> None:
        """The peer finds this end again."""

    def handle_clock_step(self) -> None:
        """No wait depends on the wall clock."""

    # --- packets ----------------------------------------------------------------------------------

    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        opened = open_static(self._opener, datagram)
        identity, mark = mark_of(opened.packet_time, opened.packet_id), self._sessions.replays
        assert mark is not None
        if opened.packet_time < mark.received >> 32:
            mark.tell_older()
            raise RemoteProtocolError("replay_too_old", "this packet is of an earlier session")
        if identity <= mark.received:
            raise RemoteProtocolError("replay", "this packet came before")
        if any(link.is_attached for link in self._sessions.links.values()):
            return
        mark.note(identity)
        link = self._sessions.open(source, local_session_id=_NO_SESSION)
        link.pump()
        self._sessions.rearm()

    @property
    def tcp_endpoints(self) -> tuple[Endpoint, ...]:
        """A static key goes over UDP only."""
        return ()

    def handle_stream_closed(self, endpoint: Endpoint) -> None:
        """There are no streams."""

    def handle_unknown(self, link: PeerLink) -> None:
        """There is no session that could be unknown."""

    def handle_floated(self, link: PeerLink, previous: Endpoint) -> None:
        """The data plane follows it."""

    def handle_news(self, link: PeerLink, news: News) -> None:
        """What left can come again, with later packets."""
