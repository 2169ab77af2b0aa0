"""One session and its place in the data plane: what the session says is carried out here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from bridged.addresses import Endpoint
from bridged.dataplane.contract import DataPlane, PeerSettings, PeerSnapshot
from bridged.protocol.packets.occ import OccMessage, OccType, serialize_occ
from bridged.protocol.session.events import (
    Authenticated,
    Established,
    Event,
    Identified,
    InstallKey,
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
from bridged.runtime.tunnels.allowance import PAYLOAD_OVERHEAD, Allowance
from bridged.units import KeyId, MonotonicSeconds, PeerHandle, Seconds, WirePeerId

_QUESTION: Final = serialize_occ(OccMessage(OccType.REQUEST))
LAST_WORDS: Final = 2
"""Datagrams of a session on its way out that are kept: an alert or a farewell, and an acknowledgement."""


class LinkOwner(Protocol):
    """The tunnel, as one of its links sees it."""

    def handle_named(self, link: PeerLink, name: str) -> None:
        """The peer has proved to be `name`: let it be the link's."""

    def handle_withheld(self, link: PeerLink) -> None:
        """A control packet was not sent, because its endpoint has not answered yet."""

    def handle_settled(self, link: PeerLink) -> None:
        """The session was asked something, and may have another deadline now."""

    def handle_identified(self, link: PeerLink, event: Identified) -> None:
        """A server's peer has shown a good certificate."""

    def handle_authenticated(self, link: PeerLink, event: Authenticated) -> None:
        """Answer with `link.session.admit` or `refuse`."""

    def handle_established(self, link: PeerLink, event: Established) -> None: ...

    def handle_renegotiated(self, link: PeerLink, event: Renegotiated) -> None: ...

    def handle_down(self, link: PeerLink, event: SessionDown, last: PeerSnapshot | None) -> None: ...

    def handle_ended(self, link: PeerLink) -> None: ...


class Carrier(Protocol):
    """Sends a link's control packets while it is no peer of the data plane."""

    def send_control(self, datagram: bytes, destination: Endpoint) -> None: ...


class PeerLink:
    """Carries a session's commands into the data plane and its news to the tunnel.

    `receive_peer_id` is what the peer writes into DATA_V2 (None at a client: any). `name` is empty until
    the peer is authenticated. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        session: Session,
        handle: PeerHandle,
        endpoint: Endpoint,
        dataplane: DataPlane,
        owner: LinkOwner,
        receive_peer_id: WirePeerId | None,
        clock: Callable[[], MonotonicSeconds],
    ) -> None:
        self.session = session
        self.handle = handle
        self.endpoint = self.first_endpoint = endpoint
        self.name = ""
        self.receive_peer_id = receive_peer_id
        self.is_attached = False
        self._allowance = Allowance(endpoint)
        self.is_identified = False
        self.last_words: deque[bytes] = deque(maxlen=LAST_WORDS)
        self.carrier: Carrier = dataplane
        self.before_attach: Callable[[], None] = lambda: None
        self.after_detach: Callable[[], None] = lambda: None
        self._dataplane = dataplane
        self._owner = owner
        self._clock = clock

    @property
    def terms(self) -> Negotiated | None:
        return self.session.terms

    def receive(self, datagram: bytes) -> None:
        """A control packet from this link's endpoint."""
        self._allowance.credit(len(datagram))
        if self.session.receive_datagram(datagram, self._clock()):
            self._note_answer()
        self.pump()

    def handle_timeout(self) -> None:
        self.session.handle_timeout(self._clock())
        self.pump()

    def close(self, reason: str, detail: str, *, notify: bool = True, farewell: str | None = None) -> None:
        """End the session; see `Session.close`."""
        self.session.close(reason, detail, self._clock(), notify=notify, farewell=farewell)
        self.pump()

    def dismiss(self, detail: str, text: str) -> None:
        """End the session because its peer's name came from elsewhere, and tell the peer `text`."""
        self.session.dismiss(detail, text, self._clock())
        self.pump()

    def abort(self, detail: str) -> None:
        """End without asking the session, which is broken."""
        session = self.session
        if session.is_live:
            was_established = session.state is SessionState.ESTABLISHED
            reason = "transport_closed" if was_established else "tls_failed"
            down = SessionDown(reason, detail, was_established, session.elapsed(self._clock()))
            self._owner.handle_down(self, down, self._detach())
        self._owner.handle_ended(self)

    def handle_occ_exit(self) -> None:
        self.session.handle_occ_exit(self._clock())
        self.pump()

    def renegotiate(self, trigger: str, key_id: KeyId | None = None) -> None:
        """Replace the data key; with `key_id` only if that is the newest."""
        self.session.request_renegotiation(trigger, self._clock(), key_id)
        self.pump()

    def handle_float(self) -> None:
        """The peer was heard on the data channel from another endpoint, which is the link's now."""
        self._allowance.move(self.endpoint)
        self.session.handle_float(self._clock())
        self.pump()

    def handle_occ_reply(self) -> None:
        """The peer answered on the data channel."""
        if not self._allowance.is_proven:
            self._note_answer()
            self.pump()

    def send_payload(self, payload: bytes) -> None:
        """Answer on the data channel, unless the endpoint would get too much before it has answered."""
        if self.is_attached and self._allowance.take(len(payload) + PAYLOAD_OVERHEAD):
            self._dataplane.send_payload(self.handle, payload)

    def handle_path_change(self) -> None:
        """The way to the peer may have changed: repeat what is unacknowledged at once."""
        self.session.handle_path_change(self._clock())
        self.pump()

    def pump(self) -> None:
        """Carry out everything the session has to say, in its order."""
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
                        self.last_words.append(datagram)
                case InstallKey(key):
                    self._attach()
                    self._dataplane.install_key(self.handle, key)
                case UseKey(key_id) if self.is_attached:
                    self._dataplane.use_key(self.handle, key_id)
                case RemoveKey(key_id) if self.is_attached:
                    self._dataplane.remove_key(self.handle, key_id)
                case SendPayload(payload) if self.is_attached:
                    self._dataplane.send_payload(self.handle, payload)
                case Identified():
                    self.is_identified = True
                    self._owner.handle_named(self, event.tls.peer_name)
                    self._owner.handle_identified(self, event)
                case _:
                    self._tell_owner(event)

    def _tell_owner(self, event: Event) -> None:
        match event:
            case Authenticated():
                self._owner.handle_authenticated(self, event)
            case Established():
                self._owner.handle_established(self, event)
            case Renegotiated():
                self._owner.handle_renegotiated(self, event)
            case SessionDown():
                self._owner.handle_down(self, event, self._detach())
            case SessionEnded():
                self._owner.handle_ended(self)

    def _send(self, datagram: bytes) -> None:
        """A control packet, unless its endpoint has not answered and would get too much."""
        was_withholding = self._allowance.is_withholding
        if self._allowance.take(len(datagram)):
            carrier = self._dataplane if self.is_attached else self.carrier
            carrier.send_control(datagram, self.endpoint)
            return
        self._owner.handle_withheld(self)
        if not was_withholding:
            # The session repeats it. A small question brings an answer sooner.
            self.send_payload(_QUESTION)

    def _note_answer(self) -> None:
        if self._allowance.prove(self.endpoint):
            self.session.handle_float(self._clock())

    def _attach(self) -> None:
        terms = self.terms
        if self.is_attached or terms is None:
            return
        self._owner.handle_named(self, terms.tls.peer_name)
        self.before_attach()
        self._dataplane.add_peer(
            PeerSettings(
                handle=self.handle,
                name=self.name,
                endpoint=self.endpoint,
                receive_peer_id=self.receive_peer_id,
                transmit_peer_id=terms.transmit_peer_id,
                ping=Seconds(terms.ping) if terms.ping else None,
                ping_restart=Seconds(terms.ping_restart) if terms.ping_restart else None,
            )
        )
        self.is_attached = True

    def _detach(self) -> PeerSnapshot | None:
        if not self.is_attached:
            return None
        self.is_attached = False
        last = self._dataplane.remove_peer(self.handle)
        self.after_detach()
        return last
