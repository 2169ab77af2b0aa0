"""The role of an end with a static key that waits: its peer is whoever sends an authentic packet.

Source: docs/protocol/data.md#2-4; docs/decisions/0091, 0113 and 0115.
The other end, which calls, is a `ClientRole`: its session is established at once.
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.key_derivation import static_data_key
from bridged.protocol.packets.cbc_packet import BLOCK, CbcHmac
from bridged.protocol.packets.static_packet import OpenedStaticData, open_static
from bridged.protocol.session.events import SessionEnded
from bridged.protocol.strangers.first_packet import PREFIX_OCTETS, FirstVerdict
from bridged.runtime.server.port_share import PortShare
from bridged.runtime.server.tcp_door import TcpDoor
from bridged.runtime.tunnels.link import News, PeerLink
from bridged.runtime.tunnels.peer_records import PeerRecords
from bridged.runtime.tunnels.replay_mark import mark_of
from bridged.runtime.tunnels.sessions import Sessions
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan

_NO_SESSION: Final = b"\0" * 8
MARGIN_OCTETS: Final = 64
"""What a first packet has beside a frame, its HMAC and its IV: Ethernet's header, id and time, padding."""

FIRST_SECONDS: Final = 30.0
"""Where the LAN is silent, OpenVPN says nothing for 10 s."""


class ListeningRole:
    """Gives the first authentic sender the tunnel. Its packet was only a knock: what follows is carried.

    None that came before opens a session again (`ReplayMark`). Over TCP the newest connection whose first
    packet is authentic takes the place of the one before.
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
        self._is_undirected = settings.wrap_direction is None
        self._records = records
        least = self._opener.mac_length + 2 * BLOCK
        self._lengths = range(least, settings.tun_mtu + least + MARGIN_OCTETS + 1)
        self.most_octets = PREFIX_OCTETS + self._lengths[-1]
        self.first_seconds = FIRST_SECONDS
        self.refusal = ""
        plan = sessions.plan
        self._door = TcpDoor(
            sessions.dataplane,
            lambda endpoint: bool(sessions.links.at(endpoint)),
            self._end_strangers,
            self._count_connection,
            sessions.now,
            plan.name,
            PortShare(plan.port_share) if plan.port_share is not None else None,
            settings.tun_mtu,
            self,
        )

    @property
    def state(self) -> str:
        return "listening"

    @property
    def admission(self) -> dict[str, int]:
        return {"connected": len(self._door)} if self._door.endpoints else {}

    # --- life -------------------------------------------------------------------------------------

    def open(self) -> int:
        self._door.open(self._sessions.plan.listen_tcp)
        return 0

    def start(self) -> None:
        """The peer begins."""
        self._door.start()

    async def stop(self) -> None:
        self._door.close()

    def hand_over(self) -> None:
        """The peer goes on sending, and finds the successor."""

    def close(self) -> None:
        self._door.close()

    def apply(self, plan: TunnelPlan) -> None:
        """Nothing here depends on what can change without a restart."""

    def handle_network_change(self) -> None:
        """The peer finds this end again."""

    def handle_clock_step(self) -> None:
        """No wait depends on the wall clock."""

    # --- packets ----------------------------------------------------------------------------------

    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        if source.transport == "tcp":
            # It came before its peer was there, behind a first packet that was examined.
            return
        opened = self._opened(datagram)
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
        self._open(source)

    def _opened(self, packet: bytes) -> OpenedStaticData:
        """An authentic packet of the peer; one of ours that came back is none. Raises RemoteProtocolError."""
        opened, mark = open_static(self._opener, packet), self._sessions.replays
        assert mark is not None
        if self._is_undirected and opened.is_from(mark.origin):
            raise RemoteProtocolError("reflected", "this packet is one of ours")
        return opened

    def _open(self, source: Endpoint) -> None:
        link = self._sessions.open(source, local_session_id=_NO_SESSION)
        link.pump()
        self._sessions.rearm()

    # --- connections ------------------------------------------------------------------------------

    @property
    def tcp_endpoints(self) -> tuple[Endpoint, ...]:
        return self._door.endpoints

    def judge(self, octets: bytes) -> FirstVerdict:
        """Whether a connection begins with an authentic packet; then those before it end."""
        if len(octets) < PREFIX_OCTETS:
            return "more"
        length = int.from_bytes(octets[:PREFIX_OCTETS], "big")
        self.refusal = "short_packet"
        if length not in self._lengths:
            return "other"
        if len(octets) < PREFIX_OCTETS + length:
            return "more"
        try:
            opened = self._opened(octets[PREFIX_OCTETS : PREFIX_OCTETS + length])
        except RemoteProtocolError as error:
            self.refusal = error.code
            return "other"
        mark = self._sessions.replays
        assert mark is not None
        # OpenVPN's ids begin again with each connection, and with a later time: else it is a replay.
        if opened.packet_time <= mark.received >> 32:
            if opened.packet_time < mark.received >> 32:
                mark.tell_older()
            self.refusal = "replay"
            return "other"
        mark.note(mark_of(opened.packet_time, opened.packet_id))
        for link in list(self._sessions.links.values()):
            link.lose("the peer made another connection")
        return "packet"

    def handle_taken(self, endpoint: Endpoint) -> None:
        self._open(endpoint)
        self._door.note_identified(endpoint)

    def handle_stream_closed(self, endpoint: Endpoint) -> None:
        self._door.forget(endpoint)

    def _end_strangers(self, endpoint: Endpoint) -> None:
        for link in self._sessions.links.at(endpoint):
            link.lose("another connection has taken its place")

    def _count_connection(self, reason: str) -> None:
        self._records.statistics.control_drops["receive", reason] += 1

    def handle_unknown(self, link: PeerLink) -> None:
        """There is no session that could be unknown."""

    def handle_floated(self, link: PeerLink, previous: Endpoint) -> None:
        """The data plane follows it."""

    def handle_news(self, link: PeerLink, news: News) -> None:
        """What left can come again, with later packets."""
        is_over = isinstance(news, SessionEnded) and not self._sessions.links.at(link.endpoint)
        if is_over and link.endpoint.transport == "tcp":
            self._door.release(link.endpoint)
