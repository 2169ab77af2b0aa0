"""One session and its peer in the data plane: carries out what the session asks for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane, PeerSettings, PeerSnapshot
from bridged.protocol.packets.occ import OccMessage, OccType, serialize_occ
from bridged.protocol.session.events import (
    Authenticated,
    ChallengeAnswered,
    Established,
    ExpectKey,
    Identified,
    InstallKey,
    LoginOffered,
    RemoveKey,
    Renegotiated,
    SendDatagram,
    SendPayload,
    SessionDown,
    SessionEnded,
    UseKey,
)
from bridged.protocol.session.session import Session
from bridged.protocol.session.states import SessionState
from bridged.protocol.session.terms import Negotiated
from bridged.runtime.tunnels.allowance import PAYLOAD_OVERHEAD, AmplificationLimit
from bridged.units import KeyId, MonotonicSeconds, Octets, PeerHandle, Seconds, WirePeerId

_QUESTION: Final = serialize_occ(OccMessage(OccType.REQUEST))
LAST_PACKETS: Final = 2
"""How many of an ending session's datagrams are kept: an alert or farewell, and an acknowledgement."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """A control packet was not sent, because its endpoint has not answered yet."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The session is over. `last`: the peer's final figures, None where the data plane did not have it."""

    event: SessionDown
    last: PeerSnapshot | None


News: TypeAlias = (
    Identified
    | Authenticated
    | LoginOffered
    | ChallengeAnswered
    | Established
    | Renegotiated
    | LinkDown
    | SessionEnded
    | Withheld
)
"""What a session tells the tunnel. Answer `Authenticated` with `link.session.admit` or `refuse`, and
`LoginOffered` with `accept_login` or `reject_login`."""


class LinkOwner(Protocol):
    """Who a link reports to."""

    def handle_named(self, link: PeerLink, name: str) -> None:
        """The peer has proved to be `name`: make it the link's."""

    def handle_settled(self, link: PeerLink) -> None:
        """The session was asked something, and may have another deadline now."""

    def handle_news(self, link: PeerLink, news: News) -> None: ...


class ControlPath(Protocol):
    """Carries a link's control packets while the link is no peer of the data plane."""

    def send_control(self, datagram: bytes, destination: Endpoint) -> None: ...

    def before_attach(self, link: PeerLink) -> None:
        """The link becomes a peer of the data plane next."""

    def after_detach(self, link: PeerLink) -> None:
        """The link is no peer of the data plane any more."""


class PeerLink:
    """Carries a session's commands into the data plane and its news to the tunnel.

    `path` carries its control packets until the data plane does (None: the data plane always does).
    `receive_peer_id` is what the peer writes into DATA_V2 (None at a client: any). `name` is empty until
    the peer is authenticated. `now` gives monotonic seconds.
    """

    def __init__(
        self,
        session: Session,
        handle: PeerHandle,
        endpoint: Endpoint,
        dataplane: DataPlane,
        owner: LinkOwner,
        now: Callable[[], MonotonicSeconds],
        path: ControlPath | None = None,
    ) -> None:
        self.session = session
        self.handle = handle
        self.endpoint = self.first_endpoint = endpoint
        self.name = ""
        self.receive_peer_id: WirePeerId | None = None
        self.is_attached = False
        self.is_identified = False
        self.is_abandoned = False
        self.largest_received = self.largest_sent = 0
        """Bytes of the largest payloads of OCC: those of a peer's `--mtu-test` are the largest of all."""
        self.last_packets: deque[bytes] = deque(maxlen=LAST_PACKETS)
        self._allowance = AmplificationLimit(endpoint)
        self._dataplane = dataplane
        self._owner = owner
        self._now = now
        self._path = path

    @property
    def terms(self) -> Negotiated | None:
        return self.session.terms

    def receive(self, datagram: bytes) -> None:
        """A control packet from this link's endpoint."""
        self._allowance.credit(len(datagram))
        if self.session.receive_datagram(datagram, self._now()):
            self._note_answer()
        self.pump()

    def handle_connected(self) -> None:
        """The TCP connection to the peer stands."""
        self.session.handle_connected(self._now())
        self.pump()

    def handle_timeout(self) -> None:
        self.session.handle_timeout(self._now())
        self.pump()

    def close(self, reason: str, detail: str, *, notify: bool = True, farewell: str | None = None) -> None:
        """End the session; see `Session.close`."""
        self.session.close(reason, detail, self._now(), notify=notify, farewell=farewell)
        self.pump()

    def hand_over(self, detail: str) -> None:
        """End the session, and tell the peer that a successor continues at once."""
        self.session.close("shutdown", detail, self._now(), hands_over=True)
        self.pump()

    def lose(self, detail: str) -> None:
        """The connection to the peer is over: nothing can be said to it any more."""
        self.session.close("transport_closed", detail, self._now(), notify=False)
        self.session.end_now()
        self.pump()

    def abandon(self, detail: str) -> None:
        """End a session that nobody will miss, without a word and without a record."""
        self.is_abandoned = True
        self.close("replaced", detail, notify=False)

    def dismiss(self, detail: str, text: str) -> None:
        """End the session because its peer's name came from elsewhere, and tell the peer `text`."""
        self.session.dismiss(detail, text, self._now())
        self.pump()

    def abort(self, detail: str) -> None:
        """End without the session, which is broken."""
        session = self.session
        if session.is_live:
            was_established = session.state is SessionState.ESTABLISHED
            reason = "transport_closed" if was_established else "tls_failed"
            down = SessionDown(reason, detail, was_established, session.elapsed(self._now()))
            self._owner.handle_news(self, LinkDown(down, self._detach()))
        self._owner.handle_news(self, SessionEnded())

    def handle_occ_exit(self) -> None:
        self.session.handle_occ_exit(self._now())
        self.pump()

    def renegotiate(self, trigger: str, key_id: KeyId | None = None) -> None:
        """Replace the data key; with `key_id` only if that is the newest."""
        self.session.request_renegotiation(trigger, self._now(), key_id)
        self.pump()

    def handle_float(self) -> None:
        """A data packet of the peer came from another endpoint, which is the link's now."""
        self._allowance.move(self.endpoint)
        self.session.handle_float(self._now())
        self.pump()

    def handle_occ(self, octets: int) -> None:
        """An OCC message of `octets` bytes came from the link's endpoint."""
        self._allowance.credit(octets)
        self.largest_received = max(self.largest_received, octets)

    def handle_occ_reply(self) -> None:
        """The peer answered on the data channel."""
        if not self._allowance.is_proven:
            self._note_answer()
            self.pump()

    def send_payload(self, payload: bytes) -> None:
        """Answer on the data channel, unless that exceeds what an unproven endpoint may get."""
        if self.is_attached and self._allowance.take(len(payload) + PAYLOAD_OVERHEAD):
            self.largest_sent = max(self.largest_sent, len(payload))
            self._dataplane.send_payload(self.handle, payload)

    def probe_path(self, payload: bytes, octets: int) -> int | None:
        """See `DataPlane.probe_path`. None: it may not be sent yet, since the endpoint is unproven."""
        if not self.is_attached:
            return None
        if not self._allowance.take(octets):
            # A small question brings an answer, which proves it.
            self.ask()
            return None
        return self._dataplane.probe_path(self.handle, payload, octets)

    def ask(self) -> None:
        """Say something on the data channel: the peer learns that our keys are in place."""
        self.send_payload(_QUESTION)

    def handle_path_change(self) -> None:
        """The path to the peer may have changed: repeat unacknowledged packets at once."""
        self.session.handle_path_change(self._now())
        self.pump()

    def pump(self) -> None:
        """Carry out everything that the session asks for, in its order."""
        try:
            self._carry_out()
        finally:
            self._owner.handle_settled(self)

    def _carry_out(self) -> None:
        while (event := self.session.poll_event()) is not None:
            match event:
                case SendDatagram(datagram):
                    self._send(datagram)
                    if not self.session.is_live:
                        self.last_packets.append(datagram)
                case ExpectKey(key_id) if self.is_attached:
                    self._dataplane.expect_key(self.handle, key_id)
                case InstallKey(key):
                    self._attach()
                    self._dataplane.install_key(self.handle, key)
                case UseKey(key_id) if self.is_attached:
                    self._dataplane.use_key(self.handle, key_id)
                case RemoveKey(key_id) if self.is_attached:
                    self._dataplane.remove_key(self.handle, key_id)
                case SendPayload(payload) if self.is_attached:
                    self._dataplane.send_payload(self.handle, payload)
                case SessionDown():
                    self._owner.handle_news(self, LinkDown(event, self._detach()))
                case Identified():
                    self.is_identified = True
                    self._owner.handle_named(self, event.tls.peer_name)
                    self._owner.handle_news(self, event)
                case (
                    Authenticated()
                    | LoginOffered()
                    | ChallengeAnswered()
                    | Established()
                    | Renegotiated()
                    | SessionEnded()
                ):
                    self._owner.handle_news(self, event)

    def _send(self, datagram: bytes) -> None:
        """Send a control packet, unless that exceeds what an unproven endpoint may get."""
        was_withholding = self._allowance.is_withholding
        if self._allowance.take(len(datagram)):
            path = self._dataplane if self.is_attached or self._path is None else self._path
            path.send_control(datagram, self.endpoint)
            return
        self._owner.handle_news(self, Withheld())
        if not was_withholding:
            # The session repeats it. A small question on the data channel brings an answer sooner.
            self.send_payload(_QUESTION)

    def _note_answer(self) -> None:
        if self._allowance.prove(self.endpoint):
            self.session.handle_float(self._now())

    def _attach(self) -> None:
        terms = self.terms
        if self.is_attached or terms is None:
            return
        self._owner.handle_named(self, self.name or terms.tls.peer_name)
        if self._path is not None:
            self._path.before_attach(self)
        self._dataplane.add_peer(
            PeerSettings(
                handle=self.handle,
                name=self.name,
                endpoint=self.endpoint,
                receive_peer_id=None if terms.is_point_to_point else self.receive_peer_id,
                transmit_peer_id=terms.transmit_peer_id,
                ping=Seconds(terms.ping) if terms.ping else None,
                ping_restart=Seconds(terms.ping_restart) if terms.ping_restart else None,
                framing=terms.framing,
                fragment=Octets(terms.fragment),
            )
        )
        self.is_attached = True

    def _detach(self) -> PeerSnapshot | None:
        if not self.is_attached:
            return None
        self.is_attached = False
        last = self._dataplane.remove_peer(self.handle)
        if self._path is not None:
            self._path.after_detach(self)
        return last
