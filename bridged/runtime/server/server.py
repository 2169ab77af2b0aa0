"""The server's role: stateless answers to strangers, then one session for each client.

Source: docs/protocol/control.md#4-2, #4-3 and #8.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from bridged.addresses import Endpoint
from bridged.endings import take_every_step
from bridged.errors import DataplaneError, RemoteProtocolError
from bridged.protocol.packets.packet import HEADER_LENGTH
from bridged.protocol.packets.wrap import TlsCryptV2Keys
from bridged.protocol.session.events import (
    Authenticated,
    ChallengeAnswered,
    Established,
    Identified,
    LoginOffered,
    SessionDown,
    SessionEnded,
)
from bridged.protocol.session.states import SessionState
from bridged.protocol.strangers.listener import ANSWER_PACKET_ID
from bridged.runtime.server.admission import CertificateShares, Newcomer
from bridged.runtime.server.authentication import Authenticator
from bridged.runtime.server.client_rules import NO_ADDRESS, ClientRules
from bridged.runtime.server.known_clients import KnownClients, Notices
from bridged.runtime.server.name_conflicts import NameConflicts
from bridged.runtime.server.port_share import PortShare
from bridged.runtime.server.reception import Reception
from bridged.runtime.server.tcp_door import TcpDoor
from bridged.runtime.tunnels.clock import unix_now
from bridged.runtime.tunnels.link import LinkDown, News, PeerLink
from bridged.runtime.tunnels.peer_records import REFUSALS, PeerRecords
from bridged.runtime.tunnels.sessions import Sessions
from bridged.runtime.tunnels.tunnel_plan import TunnelPlan
from bridged.supervision import SUPERVISOR, Timer
from bridged.units import PeerHandle, WirePeerId

OWN_VERSION: Final = "bridged"
"""How IV_VER of our own clients begins."""
DRAINING_MAX: Final = 256
"""Sessions that still repeat their farewell. One more ends the oldest at once."""

RULES_SECONDS: Final = 30.0
"""How often it is asked whether the connected clients may still be here: days end, and names are banned."""

MISFITS: Final = frozenset({"cipher_mismatch", "framing_mismatch", "version_mismatch"})
"""Handshake outcomes caused by the client's configuration."""


class ServerRole:
    """Many clients on one socket. Sessions are found by the client's session id and its endpoint."""

    name = "server"
    remote = None
    state = "listening"

    def __init__(self, sessions: Sessions, records: PeerRecords) -> None:
        plan = sessions.plan
        self._sessions = sessions
        self._records = records
        self._dataplane = sessions.dataplane
        self.reception = Reception(plan, self, sessions.now, unix_now)
        # Session ids are the clients' choice: two endpoints may use one, as long as neither is established.
        self._by_session: dict[bytes, list[PeerLink]] = {}
        self._free_ids = _PeerIds(plan.peers_limit)
        self._certificates = CertificateShares()
        self._draining: dict[PeerHandle, PeerLink] = {}
        self._known = KnownClients(plan.memory)
        self._returning: list[Endpoint] = []
        self._notices = Notices(
            self._send_notice, lambda endpoint: bool(sessions.links.at(endpoint)), plan.name
        )
        self._conflicts = NameConflicts(records, sessions.now)
        self._authenticator = Authenticator(sessions, records, self)
        self._rules = ClientRules(sessions)
        self._timer: Timer | None = None
        self._door = TcpDoor(
            sessions.dataplane,
            lambda endpoint: bool(sessions.links.at(endpoint)),
            self._end_strangers,
            self.count_drop,
            sessions.now,
            plan.name,
            PortShare(plan.port_share) if plan.port_share is not None else None,
            plan.session.tun_mtu,
        )

    @property
    def admission(self) -> dict[str, int]:
        found = {"waiting": self.reception.count_waiting(), "running": len(self.reception.places)}
        return found | ({"connected": len(self._door)} if self._door.endpoints else {})

    @property
    def tcp_endpoints(self) -> tuple[Endpoint, ...]:
        return self._door.endpoints

    # --- life -------------------------------------------------------------------------------------

    def open(self) -> int:
        # Before the data plane starts: resets may wait in an inherited socket.
        self._dataplane.answer_resets(self.reception.answers)
        self._door.open(self._sessions.plan.listen_tcp)
        self._returning = self._known.load()
        return len(self._returning)

    def start(self) -> None:
        self._notices.tell(self._returning)
        self._timer = SUPERVISOR.every("client_rules", RULES_SECONDS, self._enforce, self._sessions.plan.name)
        self._door.start()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def stop(self) -> None:
        take_every_step(
            (
                self._door.close,
                partial(self._dataplane.answer_resets, None),
                self.reception.close,
                self._notices.close,
                self._authenticator.close,
                self._end_timer,
            )
        )

    def hand_over(self) -> None:
        self._known.leave()

    def close(self) -> None:
        take_every_step((self._door.close, self._known.close))

    def apply(self, plan: TunnelPlan) -> None:
        self.reception.apply(plan)
        self._authenticator.apply()
        if not self._sessions.is_stopping:
            self._dataplane.answer_resets(self.reception.answers)
        self._free_ids.limit = plan.peers_limit
        self._enforce()

    def _enforce(self) -> None:
        """End the sessions of clients that may not be here any more."""
        self._rules.refresh()
        self.reception.refresh()
        for link in list(self._sessions.links.values()):
            objection = self._objection(link) if link.is_attached else None
            if objection is not None:
                link.close("kicked", objection, farewell=f"AUTH_FAILED,{objection}")
        self._sessions.rearm()

    def _objection(self, link: PeerLink) -> str | None:
        keys = link.session.wire.wrap_keys
        key = keys.client_key if isinstance(keys, TlsCryptV2Keys) else None
        return self._rules.objection(link.name) or (self.reception.objection(key) if key else None)

    def handle_network_change(self) -> None:
        """Clients find the server again; it has nothing of its own to do."""

    def handle_clock_step(self) -> None:
        """No wait of a server depends on the wall clock."""

    # --- packets ----------------------------------------------------------------------------------

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

    def handle_unknown(self, link: PeerLink) -> None:
        """Only a client asks whether that is true."""
        self._records.log.debug("notice_ignored", peer=link.name)

    # --- for the reception ------------------------------------------------------------------------

    def open_session(self, newcomer: Newcomer) -> PeerLink:
        link = self._sessions.open(
            newcomer.source,
            local_session_id=newcomer.cookie,
            remote_session_id=newcomer.remote_session_id,
            next_packet_id=ANSWER_PACKET_ID + 1,
            keys=newcomer.first.keys,
        )
        self._by_session.setdefault(newcomer.remote_session_id, []).append(link)
        for opened in newcomer.opened():
            link.session.receive_opened(opened, self._sessions.now())
        link.pump()
        self._sessions.rearm()
        return link

    def send_stranger(self, datagram: bytes, endpoint: Endpoint) -> None:
        self._dataplane.send_control(datagram, endpoint)

    def end_stranger(self, handle: PeerHandle) -> None:
        link = self._sessions.links.get(handle)
        if link is not None:
            link.close("peer_limit", "the handshake stalled, and others wait for its place", notify=False)

    def note_refused_key(self, source: Endpoint, detail: str) -> None:
        self._records.note_refused_key(source, detail)

    def report_keys(self, event: str, reason: str) -> None:
        self._records.log.error(event, reason=reason)

    def count_drop(self, code: str) -> None:
        self._records.statistics.control_drops["receive", code] += 1

    # --- news of the sessions ---------------------------------------------------------------------

    def handle_news(self, link: PeerLink, news: News) -> None:
        match news:
            case Identified():
                self._handle_identified(link, news)
            case Authenticated():
                self._authenticator.begin(link, news)
            case LoginOffered():
                self._authenticator.renew(link, news)
            case ChallengeAnswered():
                self._authenticator.answer(link, news)
            case Established():
                self._handle_established(link)
            case LinkDown():
                self._handle_down(link, news.event)
            case SessionEnded():
                self._handle_ended(link)

    def handle_stream_closed(self, endpoint: Endpoint) -> None:
        self._door.forget(endpoint)

    def _end_strangers(self, endpoint: Endpoint) -> None:
        for link in self._sessions.links.at(endpoint):
            link.lose("another connection has taken its place")

    def _handle_identified(self, link: PeerLink, event: Identified) -> None:
        """It leaves the places of strangers. From now on its certificate is charged for it."""
        if not event.tls.peer_fingerprint:
            # Without a certificate it remains a stranger until its password is checked.
            return
        self.reception.leave(link.handle)
        self._door.note_identified(link.endpoint)
        plan = self._sessions.plan
        shared = plan.peers_limit if plan.duplicate_names else 0
        for handle in self._certificates.enter(event.tls.peer_fingerprint, link.handle, shared):
            detail = f"{link.name} began another session from {link.endpoint}"
            self._sessions.links[handle].close("replaced", detail, notify=False)

    def let_in(self, link: PeerLink, name: str, token: str | None) -> None:
        """The peer is who it says; `name` is empty where its certificate names it."""
        self.reception.leave(link.handle)
        if name:
            self._sessions.handle_named(link, name)
        self._admit(link, token)

    def _admit(self, link: PeerLink, token: str | None) -> None:
        """Take a place only now: a peer that has proved nothing cannot keep others out."""
        if not self._may_be_here(link):
            return
        peer_id = self._free_ids.take()
        if peer_id is None and not self._sessions.plan.duplicate_names:
            # A site that comes again must not be kept out by its own past.
            for other in self._sessions.links.named(link.name):
                if other is not link:
                    self._conflicts.replace(other, link)
            peer_id = self._free_ids.take()
        if peer_id is None:
            text = "the server has no room for another peer"
            link.session.refuse("peer_limit", text, self._sessions.now())
            return
        push = self._rules.options(link.handle, link.name)
        if push is None:
            self._free_ids.release(peer_id)
            link.session.refuse("peer_limit", NO_ADDRESS, self._sessions.now())
            return
        link.receive_peer_id = peer_id
        link.session.admit(peer_id, self._sessions.now(), push, token)

    def _may_be_here(self, link: PeerLink) -> bool:
        self._rules.refresh()
        objection = self._rules.objection(link.name)
        if objection is not None:
            link.session.refuse("client_refused", objection, self._sessions.now())
            return False
        others = sum(other.is_attached for other in self._sessions.links.named(link.name))
        if self._sessions.plan.duplicate_names and self._rules.is_full(link.name, others):
            text = "this client has as many sessions as it may have"
            link.session.refuse("peer_limit", text, self._sessions.now())
            return False
        return True

    def _handle_established(self, link: PeerLink) -> None:
        self._certificates.leave(link.handle)
        self._door.note_identified(link.endpoint)
        self._note_client(link)
        others = self._sessions.links.at(link.endpoint)
        if not self._sessions.plan.duplicate_names:
            others += self._sessions.links.named(link.name)
        for other in others:
            if other is not link and other.is_attached:
                self._conflicts.replace(other, link)

    def _send_notice(self, datagram: bytes, endpoint: Endpoint) -> None:
        try:
            self._dataplane.send_control(datagram, endpoint)
        except DataplaneError:
            pass  # an address that this socket does not reach any more

    def handle_floated(self, link: PeerLink, previous: Endpoint) -> None:
        self._known.forget(previous)
        self._note_client(link)

    def _note_client(self, link: PeerLink) -> None:
        """Only our own clients understand a notice; who loses a connection needs none."""
        if (
            link.endpoint.transport == "udp"
            and link.terms is not None
            and (link.terms.peer_version or "").startswith(OWN_VERSION)
        ):
            self._known.note(link.endpoint)

    def _handle_down(self, link: PeerLink, event: SessionDown) -> None:
        self._conflicts.note_down(link)
        self._authenticator.forget(link)
        self._rules.release(link.handle)
        if not event.was_established and event.reason in REFUSALS | MISFITS:
            self._records.refused.note_handshake(link.endpoint, event.reason, event.detail, unix_now())
        if link.receive_peer_id is not None:
            self._free_ids.release(link.receive_peer_id)
            link.receive_peer_id = None
        self.reception.leave(link.handle)
        self._certificates.leave(link.handle)
        if event.was_established and not self._has_other(link):
            self._known.forget(link.endpoint)
        if not link.is_identified:
            # It proved nothing. Its last packets are kept and repeated; the session itself ends at once.
            link.session.end_now()
        elif link.session.state is SessionState.DRAINING:
            self._draining[link.handle] = link
            while len(self._draining) > DRAINING_MAX:
                oldest = self._draining.pop(next(iter(self._draining)))
                oldest.session.end_now()
                oldest.pump()

    def _has_other(self, link: PeerLink) -> bool:
        others = self._sessions.links.at(link.endpoint)
        return any(other is not link and other.is_attached for other in others)

    def _handle_ended(self, link: PeerLink) -> None:
        self._draining.pop(link.handle, None)
        self.reception.note_end(link)
        self._conflicts.note_ended(link)
        if link.endpoint.transport == "tcp" and not self._sessions.links.at(link.endpoint):
            self._door.release(link.endpoint)
        remote = link.session.remote_session_id
        if remote is None:
            return
        links = self._by_session.get(remote, [])
        if link in links:
            links.remove(link)
        if not links:
            self._by_session.pop(remote, None)


class _PeerIds:
    """DATA_V2 peer ids 0 … `limit`-1. The one released longest ago is taken next.

    This keeps a late datagram from reaching the id's next holder. A lower limit takes no id away.
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

    def release(self, peer_id: WirePeerId) -> None:
        self._returned[peer_id] = None
