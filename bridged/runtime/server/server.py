"""A listening tunnel: stateless answers first, then one session for each client.

Source: docs/protocol/control.md#4-2, #4-3 and #8.
"""

from __future__ import annotations

from typing import Final

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane, PeerSnapshot
from bridged.errors import DataplaneError, RemoteProtocolError
from bridged.protocol.packets.packet import HEADER_LENGTH
from bridged.protocol.session.events import Authenticated, Established, Identified, SessionDown
from bridged.protocol.session.states import SessionState
from bridged.protocol.strangers.listener import ANSWER_PACKET_ID
from bridged.runtime.server.admission import CertificateShares, Newcomer
from bridged.runtime.server.known_clients import KnownClients, Notices
from bridged.runtime.server.reception import Reception
from bridged.runtime.server.rivals import Rivals
from bridged.runtime.tunnels.link import PeerLink
from bridged.runtime.tunnels.tunnel import REFUSALS, Tunnel, monotonic, unix_now
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.units import PeerHandle, WirePeerId

OWN_VERSION: Final = "bridged"
"""IV_VER of our own clients begins so."""
DRAINING_MAX: Final = 256
"""Sessions whose end is still repeated; beyond, the oldest is over at once."""

MISFITS: Final = frozenset({"cipher_mismatch", "framing_mismatch", "version_mismatch"})
"""Handshake outcomes that lie in how the client is configured."""


class ServerTunnel(Tunnel):
    """Many clients on one socket. Sessions are found by the client's session id and its endpoint."""

    role = "server"

    def __init__(self, plan: TunnelPlan, dataplane: DataPlane) -> None:
        super().__init__(plan, dataplane)
        self.reception = Reception(plan, self, monotonic, unix_now)
        # Session ids are clients' choice: two endpoints may use one, as long as neither is established.
        self._by_session: dict[bytes, list[PeerLink]] = {}
        self._free_ids = _PeerIds(plan.peers_limit)
        self._certificates = CertificateShares()
        self._draining: dict[PeerHandle, PeerLink] = {}
        self._known = KnownClients(plan.memory)
        self._notices = Notices(self._send_notice, lambda endpoint: bool(self.links.at(endpoint)), plan.name)
        self._rivals = Rivals(self.log, self.statistics, self._note_conflict, monotonic)

    async def start(self) -> None:
        await super().start()
        self.dataplane.answer_resets(self.reception.answers)
        self._notices.tell(self._known.load())

    async def stop(self) -> None:
        self.dataplane.answer_resets(None)
        self.reception.close()
        self._notices.close()
        await super().stop()
        self._known.close()

    @property
    def state(self) -> str:
        return "listening"

    def apply(self, plan: TunnelPlan) -> None:
        super().apply(plan)
        self.reception.apply(plan)
        if not self.is_stopping:
            self.dataplane.answer_resets(self.reception.answers)
        self._free_ids.limit = plan.peers_limit

    def receive_control(self, datagram: bytes, source: Endpoint) -> None:
        links = self._by_session.get(datagram[1:HEADER_LENGTH], ())
        for link in links:
            if link.endpoint == source:
                link.receive(datagram)
                self.reception.note_progress(link)
                return
        if any(link.is_attached for link in links):
            # Control packets do not move a session; the next data packet will (control.md#1-5).
            raise RemoteProtocolError("cookie_mismatch", "a known session from another address")
        self.reception.receive(datagram, source)

    # --- for the reception ------------------------------------------------------------------------

    def open_session(self, newcomer: Newcomer) -> PeerLink:
        link = self.make_link(
            newcomer.source,
            local_session_id=newcomer.cookie,
            remote_session_id=newcomer.remote_session_id,
            next_packet_id=ANSWER_PACKET_ID + 1,
        )
        self._by_session.setdefault(newcomer.remote_session_id, []).append(link)
        for opened in newcomer.opened():
            link.session.receive_opened(opened, monotonic())
        link.pump()
        self._rearm()
        return link

    def send_stranger(self, datagram: bytes, endpoint: Endpoint) -> None:
        self.dataplane.send_control(datagram, endpoint)

    def end_stranger(self, handle: PeerHandle) -> None:
        link = self.links.get(handle)
        if link is not None:
            link.close("peer_limit", "it did not go on, and others wait for its place", notify=False)

    # --- peers ------------------------------------------------------------------------------------

    def handle_identified(self, link: PeerLink, event: Identified) -> None:
        """What it holds from now on counts for its certificate."""
        self.reception.leave(link.handle)
        shared = self.plan.peers_limit if self.plan.duplicate_names else 0
        for handle in self._certificates.enter(event.tls.peer_fingerprint, link.handle, shared):
            detail = f"{link.name} began another session from {link.endpoint}"
            self.links[handle].close("replaced", detail, notify=False)

    def handle_authenticated(self, link: PeerLink, event: Authenticated) -> None:
        """Only now a place is taken: what has proved nothing cannot keep peers out."""
        peer_id = self._free_ids.take()
        if peer_id is None and not self.plan.duplicate_names:
            # A site that comes again must not be kept out by its own past.
            for other in self.links.named(link.name):
                if other is not link:
                    self._rivals.replace(other, link)
            peer_id = self._free_ids.take()
        if peer_id is None:
            link.session.refuse("peer_limit", "the server has no room for another peer", monotonic())
            return
        link.receive_peer_id = peer_id
        link.session.admit(peer_id, monotonic())

    def handle_established(self, link: PeerLink, event: Established) -> None:
        self._certificates.leave(link.handle)
        super().handle_established(link, event)
        self._note_client(link)
        others = self.links.at(link.endpoint)
        if not self.plan.duplicate_names:
            others += self.links.named(link.name)
        for other in others:
            if other is not link and other.is_attached:
                self._rivals.replace(other, link)

    def _send_notice(self, datagram: bytes, endpoint: Endpoint) -> None:
        try:
            self.dataplane.send_control(datagram, endpoint)
        except DataplaneError:
            pass  # an address that this socket does not reach any more

    def _handle_float(self, handle: PeerHandle, endpoint: Endpoint, previous: Endpoint) -> None:
        super()._handle_float(handle, endpoint, previous)
        if (link := self.links.get(handle)) is not None:
            self._known.forget(previous)
            self._note_client(link)

    def _note_client(self, link: PeerLink) -> None:
        """Only our own clients understand a notice."""
        if link.terms is not None and (link.terms.peer_version or "").startswith(OWN_VERSION):
            self._known.note(link.endpoint)

    def handle_down(self, link: PeerLink, event: SessionDown, last: PeerSnapshot | None) -> None:
        super().handle_down(link, event, last)
        self._rivals.note_down(link)
        if not event.was_established and event.reason in REFUSALS | MISFITS:
            self.refused.note_handshake(link.endpoint, event.reason, event.detail, unix_now())
        if link.receive_peer_id is not None:
            self._free_ids.give_back(link.receive_peer_id)
            link.receive_peer_id = None
        self.reception.leave(link.handle)
        self._certificates.leave(link.handle)
        if event.was_established and not self._has_other(link):
            self._known.forget(link.endpoint)
        if not link.is_identified:
            # It proved nothing: a tombstone repeats its last words, the session costs nothing any more.
            link.session.end_now()
        elif link.session.state is SessionState.DRAINING:
            self._draining[link.handle] = link
            while len(self._draining) > DRAINING_MAX:
                oldest = self._draining.pop(next(iter(self._draining)))
                oldest.session.end_now()
                oldest.pump()

    def _has_other(self, link: PeerLink) -> bool:
        return any(other is not link and other.is_attached for other in self.links.at(link.endpoint))

    def _note_conflict(self, text: str) -> None:
        self.last_error = text

    def handle_ended(self, link: PeerLink) -> None:
        super().handle_ended(link)
        self._draining.pop(link.handle, None)
        self.reception.bury(link)
        self._rivals.note_ended(link)
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
