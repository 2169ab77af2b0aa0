"""One session with one peer: control packets in; control packets, keys and events out.

Source: docs/protocol/control.md#2 to #6.
Pure: no sockets, no clock; `now` is monotonic seconds, random bytes come from a function.

`Session` composes its parts, which share one `core` (settings, state, timers, events): `wire` makes and reads
packets, `key_slots` holds the keys, `renegotiation` replaces them, `conversation_client` and
`conversation_server` speak inside TLS, and `farewell` ends the session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from bridged.errors import LocalProtocolError, PeerRefusedError, RemoteProtocolError, TlsError
from bridged.protocol.packets.messages import Message, parse_message, split_messages
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode
from bridged.protocol.packets.wrap import OpenedControl, WrapChannel
from bridged.protocol.role import Role
from bridged.protocol.session.conversation import Conversation
from bridged.protocol.session.conversation_client import ClientConversation
from bridged.protocol.session.conversation_point_to_point import PointToPointClient, PointToPointServer
from bridged.protocol.session.conversation_server import ServerConversation
from bridged.protocol.session.core import DRAIN_SECONDS, SessionCore
from bridged.protocol.session.events import Renegotiated, SendDatagram, SessionEvent
from bridged.protocol.session.farewell import Farewell
from bridged.protocol.session.handshake_hints import hint
from bridged.protocol.session.key_slots import KeySlots
from bridged.protocol.session.key_state import KeyInput, KeyPhase, KeyState
from bridged.protocol.session.renegotiation import Renegotiation
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.states import Proof, SessionInput, SessionState
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.timers import Deadline, SessionTimer
from bridged.protocol.session.tls_session import TlsEngineFactory
from bridged.protocol.session.wire import SessionWire
from bridged.units import KeyId, Seconds

_PEER_FAULTS: Final = frozenset({"cipher_mismatch", "framing_mismatch", "push_failed", "auth_failed"})
"""Handshake outcomes that the peer's messages, and not its packets, can cause."""


def _conversation(settings: SessionSettings) -> type[ClientConversation | ServerConversation]:
    if settings.is_point_to_point:
        return PointToPointClient if settings.role is Role.CLIENT else PointToPointServer
    return ClientConversation if settings.role is Role.CLIENT else ServerConversation


class Session:
    """A client's or a server's session with one peer; `settings.role` tells which.

    There are three kinds of methods:

    - *Inputs* tell the session what happened: `receive_datagram`, `receive_opened`, `handle_timeout`,
      `handle_connected`, `handle_path_change`, `handle_float`, `handle_occ_exit`.
    - *Outputs* tell what to do next: `poll_event`, `poll_timeout`, and the properties.
    - *Verbs* ask for something: `admit`, `challenge`, `refuse`, `accept_login`, `reject_login`,
      `request_renegotiation`, `close`, `end_now`, `dismiss`, `soften_dismissal`.

    After each input and verb, take `poll_event` until it returns None, carry the events out in their order,
    then ask `poll_timeout` when to call `handle_timeout`.

    A server makes its session when the cookie came back: then `remote_session_id` is known, and
    `local_session_id` is the cookie (docs/protocol/control.md#4-2). `drops` counts what the peer did wrong,
    by drop reason; no exception is raised for it.
    """

    def __init__(
        self,
        settings: SessionSettings,
        make_engine: TlsEngineFactory,
        random_bytes: Callable[[int], bytes],
        wrap: WrapChannel,
        local_session_id: bytes,
        now: float,
        *,
        remote_session_id: bytes | None = None,
    ) -> None:
        self.drops: Counter[str] = Counter()
        core = SessionCore(settings, random_bytes, now)
        self._core = core
        self.wire = SessionWire(
            settings.role,
            wrap,
            local_session_id,
            remote_session_id,
            lambda datagram: core.emit(SendDatagram(datagram)),
        )
        self.keys = KeySlots(core, self.wire, make_engine)
        self._renegotiation = Renegotiation(core, self.keys)
        is_client = settings.role is Role.CLIENT
        self.conversation: Conversation = _conversation(settings)(core, self.keys, self.wire)
        self._farewell = Farewell(core, self.keys, self.conversation)
        self._has_heard_peer = remote_session_id is not None
        self._hastened_at = -settings.tls_timeout
        reset = Opcode.HARD_RESET_CLIENT_V3 if wrap.keys.wrapped_key else Opcode.HARD_RESET_CLIENT_V2
        self.keys.open(KeyId(0), "initial", reset if is_client else None, now)
        self.keys.transmit(now)

    # --- inputs -----------------------------------------------------------------------------------

    def receive_datagram(self, datagram: bytes, now: float) -> bool:
        """Take a datagram with a control opcode from this session's endpoint; False if it was dropped."""
        try:
            self._take(self.wire.unwrap(datagram), now)
        except RemoteProtocolError as error:
            self.drops[error.code] += 1
            return False
        return True

    def receive_opened(self, opened: OpenedControl, now: float) -> None:
        """Take the packet that the stateless listener has already unwrapped."""
        try:
            self._take(opened, now)
        except RemoteProtocolError as error:
            self.drops[error.code] += 1

    def handle_timeout(self, now: float) -> None:
        """Do what is due; harmless if called early."""
        if self.state is SessionState.DRAINING and self._core.timers.is_due(SessionTimer.DRAIN, now):
            self._farewell.finish()
        if self.is_live:
            for key, detail in self.keys.take_overdue(now):
                self._fail_key(key, "timeout", detail, now)
            self.keys.handle_timeout(now)
            self._renegotiation.handle_timeout(now)
        if self.is_live:
            self._guarded(lambda: self.conversation.handle_timeout(now), now)
        self._settle(now)

    def handle_connected(self, now: float) -> None:
        """The TCP connection that carries it stands. Control packets have found that out by themselves."""

    def handle_path_change(self, now: float) -> None:
        """The path to the peer may have changed: repeat everything unacknowledged now, with fresh timers."""
        for key in self.keys.newest_first():
            key.send.send_now(now)
        self._settle(now)

    def handle_float(self, now: float) -> None:
        """The peer was heard from another address: repeat, but at most once per `tls_timeout`.

        Anyone who has the peer's keys can claim addresses as fast as it can send.
        """
        at = max(now, self._hastened_at + self._core.settings.tls_timeout)
        if now < self._hastened_at:
            return
        self._hastened_at = at
        for key in self.keys.newest_first():
            if at <= now:
                key.send.send_now(now)
            else:
                key.send.hasten(at)
        self._settle(now)

    def handle_occ_exit(self, now: float) -> None:
        """The peer said on the data channel that it leaves."""
        self._core.leave(SessionInput.PEER_LEFT, "exit_notify", "the peer left", now)
        self._settle(now)

    # --- outputs ----------------------------------------------------------------------------------

    def poll_event(self) -> SessionEvent | None:
        """The oldest event that was not taken yet; control packets are among them."""
        return self._core.next_event()

    def poll_timeout(self) -> Deadline | None:
        """When to call `handle_timeout` next, and why.

        None: nothing will be due. The session has ended, or is established and never renews its key by time.
        """
        return self._core.next_deadline()

    @property
    def state(self) -> SessionState:
        return self._core.state

    @property
    def is_live(self) -> bool:
        """Neither draining nor closed."""
        return self._core.is_live

    @property
    def terms(self) -> Negotiated | None:
        """What both ends agreed on; None before."""
        return self.conversation.terms

    @property
    def progress(self) -> tuple[Proof, int]:
        """What the peer has proved, and a number that grows with every step of the handshake."""
        key = self.keys.primary
        if key is None or key.phase not in (KeyPhase.PRE_START, KeyPhase.START):
            return Proof.CERTIFICATE, 0
        return (Proof.TLS if key.has_spoken else Proof.COOKIE), key.packets_settled

    @property
    def local_session_id(self) -> bytes:
        return self.wire.local_session_id

    @property
    def remote_session_id(self) -> bytes | None:
        """None at a client that no server has answered yet."""
        return self.wire.remote_session_id

    @property
    def handshake_hint(self) -> str:
        """What to look at if the peer says nothing more; empty once the handshake is over."""
        key = self.keys.primary
        return hint(key) if key is not None else ""

    @property
    def rtt(self) -> float | None:
        """Round-trip seconds of the newest control packet that was sent once and acknowledged."""
        for key in self.keys.newest_first():
            if key.send.last_rtt is not None:
                return key.send.last_rtt
        return None

    @property
    def dismissal_was_acknowledged(self) -> bool:
        """The peer acknowledged the first message of `dismiss`: it was still there."""
        return self._farewell.was_acknowledged

    def elapsed(self, now: float) -> Seconds:
        """Since the session began."""
        return self._core.elapsed(now)

    # --- verbs ------------------------------------------------------------------------------------

    def admit(
        self, peer_id: int, now: float, push: tuple[str, ...] | None = None, token: str | None = None
    ) -> None:
        """Server, after `Authenticated`: let the peer in, with this DATA_V2 peer id.

        `push` replaces the settings' options; `token` takes the password's place from now on.
        """
        server = self._server_part()
        self._guarded(lambda: server.admit(peer_id, now, push, token), now)
        self._settle(now)

    def challenge(self, text: str | None, seconds: int, now: float) -> None:
        """Server, after `Authenticated`: ask for a one-time code, and wait for `ChallengeAnswered`.

        Without `text`: tell the peer that the decision takes up to `seconds`.
        """
        server = self._server_part()
        self._guarded(lambda: server.challenge(text, seconds, now), now)
        self._settle(now)

    def accept_login(self, now: float, token: str | None = None) -> None:
        """Server, after `LoginOffered`: the renegotiation goes on; `token` replaces the one before."""
        server = self._server_part()
        self._guarded(lambda: server.accept_login(now, token), now)
        self._settle(now)

    def reject_login(self, text: str, now: float, *, is_expired: bool = False) -> None:
        """Server, after `LoginOffered`: end the session and say why. `is_expired`: a token ran out."""
        server = self._server_part()
        self._guarded(lambda: server.reject_login(text, now, is_expired=is_expired), now)
        self._settle(now)

    def refuse(self, reason: str, text: str, now: float) -> None:
        """Server, after `Authenticated`: say AUTH_FAILED with `text`; `reason` is a handshake outcome."""
        server = self._server_part()
        self._guarded(lambda: server.refuse(reason, text, now), now)
        self._settle(now)

    def request_renegotiation(self, trigger: str, now: float, key_id: KeyId | None = None) -> bool:
        """Replace the data key; False if a renegotiation is already under way, or not possible.

        With `key_id`: only if that is the newest key. An older one is on its way out anyway.
        """
        newest = self.keys.primary
        is_wanted = key_id is None or (newest is not None and newest.key_id == key_id)
        started = is_wanted and self._renegotiation.begin(trigger, now)
        self._settle(now)
        return started

    def close(
        self,
        reason: str,
        detail: str,
        now: float,
        *,
        notify: bool = True,
        farewell: str | None = None,
        hands_over: bool = False,
    ) -> None:
        """End the session from our side; `reason` as in `SessionDown`. Tells the peer if `notify`.

        `farewell`: the control message that a server sends in place of RESTART. A session that is already
        draining ends sooner. `hands_over`: tell the peer that a successor continues at once.
        """
        self._farewell.close(reason, detail, now, notify=notify, text=farewell, hands_over=hands_over)
        self._settle(now)

    def end_now(self) -> None:
        """End a draining session at once: what is unacknowledged is not repeated any more."""
        if self.state is SessionState.DRAINING:
            self._farewell.finish()

    def dismiss(self, detail: str, text: str, now: float) -> None:
        """Server: end as `replaced`, and tell the peer `text`.

        An OpenVPN client does not acknowledge the message that ends it. Send a harmless one first, and the
        end after its acknowledgement. `dismissal_was_acknowledged` then shows that the peer was there.
        """
        self._farewell.dismiss(detail, text, now)
        self._settle(now)

    def soften_dismissal(self) -> None:
        """The peer that took this one's place is gone: this one may come back at once."""
        self._farewell.soften_dismissal()

    # --- inside -----------------------------------------------------------------------------------

    def _server_part(self) -> ServerConversation:
        if not isinstance(self.conversation, ServerConversation):
            raise LocalProtocolError("only a server admits and refuses peers")
        return self.conversation

    def _take(self, opened: OpenedControl, now: float) -> None:
        if self.state is SessionState.CLOSED:
            return
        header = opened.header
        body = self.wire.take(opened, now)
        key = self._key_for(header, body, now)
        if not self._has_heard_peer:
            self._has_heard_peer = True
            key.send.send_now(now)
        key.send.acknowledge(body.acks, now)
        if body.message_id is not None:
            key.store(body.message_id, header.opcode, body.payload)
        self._advance(key, now)
        self._settle(now)

    def _key_for(self, header: ControlHeader, body: ControlBody, now: float) -> KeyState:
        key = self.keys.find(header.key_id)
        if header.opcode is Opcode.SOFT_RESET_V1 and (key is None or key.phase is KeyPhase.DEAD):
            key = self._renegotiation.answer(header.key_id, now) or key
        if key is None:
            raise RemoteProtocolError("unknown_key_id", f"key id {header.key_id} is not negotiated")
        return key

    def _advance(self, key: KeyState, now: float) -> None:
        if key.phase is KeyPhase.DEAD or not self.is_live:
            # Ignore what the peer says, but repeat our alert or farewell.
            self._flush_alert(key, now)
            return
        try:
            key.advance(now)
            self._converse(key, now)
        except TlsError as error:
            self._flush_alert(key, now)
            self._fail_key(key, error.code, str(error), now, is_refused=isinstance(error, PeerRefusedError))
        except RemoteProtocolError as error:
            code = error.code if error.code in _PEER_FAULTS else "tls_failed"
            self._fail_key(key, code, str(error), now, is_refused=code == "auth_failed")

    def _guarded(self, step: Callable[[], None], now: float) -> None:
        """Run a step that may send a control message; a dead TLS session ends its key."""
        key = self.keys.speaker
        try:
            step()
        except TlsError as error:
            if key is not None:
                self._fail_key(key, error.code, str(error), now)

    def _flush_alert(self, key: KeyState, now: float) -> None:
        try:
            key.flush(now)
        except TlsError:
            key.give_up()

    def _converse(self, key: KeyState, now: float) -> None:
        if key.phase not in (KeyPhase.EXCHANGE, KeyPhase.ACTIVE, KeyPhase.GENERATED):
            return
        self.conversation.open(key, now)
        while plaintext := key.engine.read():
            if not key.is_exchanged:
                self.conversation.receive_key_message(key, plaintext, now)
            else:
                for text in split_messages(plaintext):
                    self._handle_message(parse_message(text), key, now)
        if not self.is_live or key.phase is not KeyPhase.EXCHANGE or not key.is_exchanged:
            return
        if self.conversation.terms is not None:
            # The peer may be a step ahead, and seal with this key before its acknowledgement arrives.
            self.keys.install(key, self.conversation.terms)
        if key.is_quiet:
            key.step(KeyInput.EXCHANGED)
            self.conversation.handle_active(key, now)

    def _handle_message(self, message: Message, key: KeyState, now: float) -> None:
        if self.is_live:
            self.conversation.handle_message(message, key, now)

    def _fail_key(
        self, key: KeyState, code: str, detail: str, now: float, *, is_refused: bool = False
    ) -> None:
        """One negotiation failed: the session too, unless an older key carries on.

        `is_refused`: the peer may not stay, so no older key carries on.
        """
        if key.phase is KeyPhase.DEAD:
            return
        if key.phase is KeyPhase.GENERATED:
            # Its data key is good, but a session without a control channel has no future. A lame duck does
            # not need one any more.
            if key is self.keys.primary:
                detail = f"control channel: {detail}"
                self._core.leave(SessionInput.FAILED, "transport_closed", detail, now)
            return
        key.step(KeyInput.FAILED)
        if self.state is SessionState.HANDSHAKE:
            drain = 0.0 if code == "timeout" else DRAIN_SECONDS
            self._core.leave(SessionInput.FAILED, code, detail, now, drain=drain)
        elif self.state is SessionState.ESTABLISHED:
            self._core.emit(Renegotiated(key.trigger, code, Seconds(now - key.started_at), detail))
            if is_refused:
                self._farewell.say(now)
                self._core.leave(SessionInput.FAILED, "auth_expired", detail, now)
            elif self.keys.has_usable:
                self._renegotiation.plan_retry(key, now)
            else:
                self._core.leave(SessionInput.FAILED, "renegotiation_failed", detail, now)

    def _settle(self, now: float) -> None:
        """Send what this step brought about, and end the session if nothing remains to be done."""
        self.keys.transmit(now)
        self._farewell.settle(now)
