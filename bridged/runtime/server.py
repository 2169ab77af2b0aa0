"""A listening tunnel: stateless answers first, then one session for each client.

Source: docs/protocol/control.md, sections 4.2, 4.3 and 8.
"""

from __future__ import annotations

import secrets
from typing import Final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane, PeerSnapshot
from bridged.errors import RemoteProtocolError
from bridged.protocol.cookie import COOKIE_SECRET_LENGTH, CookieJar
from bridged.protocol.listener import ANSWER_PACKET_ID, Answer, Listener, NewSession
from bridged.protocol.packet import HEADER_LENGTH
from bridged.protocol.session_types import Authenticated, Established, SessionDown, SessionState
from bridged.runtime.link import PeerLink
from bridged.runtime.tunnel import Tunnel, monotonic, unix_now
from bridged.runtime.tunnel_plan import TunnelPlan
from bridged.units import WirePeerId

UNAUTHENTICATED_MAX: Final = 256
"""Sessions that are still in their handshake: what strangers can make us hold."""


class ServerTunnel(Tunnel):
    """Many clients on one socket. Sessions are found by the client's session id and its endpoint."""

    role = "server"

    def __init__(self, plan: TunnelPlan, dataplane: DataPlane) -> None:
        super().__init__(plan, dataplane)
        self._secret = secrets.token_bytes(COOKIE_SECRET_LENGTH)
        self._listener = self._listen(plan)
        # Session ids are clients' choice: two endpoints may use one, as long as neither is established.
        self._by_session: dict[bytes, list[PeerLink]] = {}
        self._free_ids = _PeerIds(plan.peers_limit)

    @property
    def state(self) -> str:
        return "listening"

    def _listen(self, plan: TunnelPlan) -> Listener:
        return Listener(plan.wrap, CookieJar(self._secret, int(plan.session.hand_window)))

    def apply(self, plan: TunnelPlan) -> None:
        super().apply(plan)
        self._listener = self._listen(plan)
        self._free_ids.limit = plan.peers_limit

    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        links = self._by_session.get(datagram[1:HEADER_LENGTH], ())
        for link in links:
            if link.endpoint == source:
                link.receive(datagram)
                return
        if any(link.is_attached for link in links):
            # Control packets do not move a session; the next data packet will (control 1.5).
            raise RemoteProtocolError("cookie_mismatch", "a known session from another address")
        if self.is_stopping:
            # An answer now would bind the client to a session that nobody will know in a moment, until its
            # handshake times out; without one it asks again, and meets the next start.
            raise RemoteProtocolError("not_ready", "this end stops")
        made = self._listener.receive(datagram, source, monotonic(), unix_now())
        if isinstance(made, Answer):
            self.dataplane.send_control(made.datagram, source)
        else:
            self._open(made, source)

    def _open(self, made: NewSession, source: Endpoint) -> None:
        self._make_room()
        link = self.make_link(
            source,
            local_session_id=made.local_session_id,
            remote_session_id=made.remote_session_id,
            next_packet_id=ANSWER_PACKET_ID + 1,
        )
        self._by_session.setdefault(made.remote_session_id, []).append(link)
        link.session.receive_opened(made.opened, monotonic())
        link.pump()

    def _make_room(self) -> None:
        """The oldest stranger gives way: a newcomer is more likely to be a real peer than it."""
        unfinished = [link for link in self.links.values() if not link.is_attached]
        if len(unfinished) < UNAUTHENTICATED_MAX:
            return
        for link in unfinished:
            if link.receive_peer_id is None and link.session.state is SessionState.HANDSHAKE:
                link.close("peer_limit", "too many unfinished handshakes", notify=False)
                return
        self.statistics.note_handshake("initial", "peer_limit", 0.0)
        raise RemoteProtocolError("peer_limit", "no room for another session")

    def handle_authenticated(self, link: PeerLink, event: Authenticated) -> None:
        """Only now a place is taken: what has proved nothing cannot keep peers out."""
        peer_id = self._free_ids.take()
        if peer_id is None and not self.plan.duplicate_names:
            # A site that comes again must not be kept out by its own past.
            for other in self.links.named(link.name):
                if other is not link:
                    other.close("replaced", f"{link.name} connects again from {link.endpoint}", notify=False)
            peer_id = self._free_ids.take()
        if peer_id is None:
            link.session.refuse("peer_limit", "the server has no room for another peer", monotonic())
            return
        link.receive_peer_id = peer_id
        link.session.admit(peer_id, monotonic())

    def handle_established(self, link: PeerLink, event: Established) -> None:
        self._listener.note_handshake_done()
        super().handle_established(link, event)
        others = self.links.at(link.endpoint)
        if not self.plan.duplicate_names:
            others += self.links.named(link.name)
        for other in others:
            if other is not link and other.is_attached:
                other.close("replaced", f"{link.name} connected again from {link.endpoint}", notify=False)

    def handle_down(self, link: PeerLink, event: SessionDown, last: PeerSnapshot | None) -> None:
        super().handle_down(link, event, last)
        if link.receive_peer_id is not None:
            self._free_ids.give_back(link.receive_peer_id)
            link.receive_peer_id = None

    def handle_ended(self, link: PeerLink) -> None:
        super().handle_ended(link)
        remote = link.session.remote_session_id
        if remote is None:
            return
        links = self._by_session.get(remote, [])
        if link in links:
            links.remove(link)
        if not links:
            self._by_session.pop(remote, None)


class _PeerIds:
    """DATA_V2 peer ids 0 … `limit`-1; the one given back longest ago is taken next.

    So a datagram that is late by a moment does not meet the id's next holder. A lower limit holds for those
    that come; nobody loses an id by it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._next = 0
        self._returned: dict[int, None] = {}

    def take(self) -> WirePeerId | None:
        if self._next - len(self._returned) >= self.limit:
            return None
        if self._next < self.limit:
            self._next += 1
            return WirePeerId(self._next - 1)
        oldest = next(iter(self._returned))
        del self._returned[oldest]
        return WirePeerId(oldest)

    def give_back(self, peer_id: WirePeerId) -> None:
        self._returned[peer_id] = None
