"""One session with one peer: control packets in, control packets, keys and events out.

Source: docs/protocol/control.md#2 to #6.
Pure: no sockets, no clock; `now` is monotonic seconds, random octets come from a function.

The rounds of one key are in `key_state`, which key is used when in `session_keys`, packets in
`session_wire`; what client and server say inside TLS is in `conversation`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from bridged.errors import LocalProtocolError, PeerRefusedError, RemoteProtocolError, TlsError
from bridged.protocol.packets.messages import Message, parse_message, serialize_message
from bridged.protocol.packets.occ import OCC_EXIT
from bridged.protocol.packets.packet import ControlBody, ControlHeader, Opcode
from bridged.protocol.packets.wrap import OpenedControl, WrapChannel
from bridged.protocol.role import Role
from bridged.protocol.session.conversation import Conversation
from bridged.protocol.session.conversation_client import ClientConversation
from bridged.protocol.session.conversation_server import ServerConversation
from bridged.protocol.session.events import (
    Event,
    Renegotiated,
    SendDatagram,
    SendPayload,
    SessionDown,
    SessionEnded,
)
from bridged.protocol.session.key_slots import SessionKeys, stalled
from bridged.protocol.session.key_state import KeyInput, KeyPhase, KeyState
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.states import TRANSITIONS, Proof, SessionInput, SessionState
from bridged.protocol.session.timers import Deadline
from bridged.protocol.session.tls_port import TlsEngineFactory
from bridged.protocol.session.wire import SessionWire
from bridged.units import KeyId, MonotonicSeconds, Seconds

DRAIN_SECONDS: Final = 5.0
"""Seconds for which the end of a session is still acknowledged and repeated (data.md#5-3, control.md#6)."""
CLOSE_SECONDS: Final = 1.0
"""How long our own farewell waits for its acknowledgement."""

_PEER_FAULTS: Final = frozenset({"cipher_mismatch", "framing_mismatch", "push_failed", "auth_failed"})
"""Handshake outcomes that a peer's words, not its packets, can bring about."""


class Session:
    """A client or server session; `settings.role` tells which.

    A server's session is born when the cookie came back, with `remote_session_id` known and
    `local_session_id` being the cookie (control.md#4-2). Drive it with `receive_datagram`,
    `handle_timeout` and what the data plane heard (`handle_occ_exit`, `request_renegotiation`); after
    each of them take `poll_event` until None, and ask `poll_timeout` anew. Carry events out in their order
    (decision 40).

    `drops` counts what the peer did wrong, by drop reason; nothing is raised for it.
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
        self.settings = settings
        self.random_bytes = random_bytes
        self._events: deque[Event] = deque()
        self.wire = SessionWire(
            settings.role,
            wrap,
            local_session_id,
            remote_session_id,
            lambda datagram: self.emit(SendDatagram(datagram)),
        )
        self.state = SessionState.HANDSHAKE
        self.drops: Counter[str] = Counter()
        self._make_engine = make_engine
        self._started_at = now
        self._drain_until = float("inf")
        self._drain_until_quiet = True
        self._was_established = False
        self.is_heard_out = False
        """The peer acknowledged that it is dismissed: it was still there."""
        self._last_message: str | None = None
        self._first_heard = remote_session_id is not None
        self._hastened_at = -settings.tls_timeout
        self.keys = SessionKeys(self)
        self.conversation: Conversation = (
            ClientConversation(self) if settings.role is Role.CLIENT else ServerConversation(self)
        )
        reset = Opcode.HARD_RESET_CLIENT_V2 if settings.role is Role.CLIENT else None
        self.keys.primary = self.make_key(KeyId(0), "initial", reset, now)
        self.transmit(now)

    # --- inputs -----------------------------------------------------------------------------------

    def receive_datagram(self, datagram: bytes, now: float) -> bool:
        """Take a datagram with a control opcode from this session's endpoint; False where it was dropped."""
        try:
            self._take(self.wire.unwrap(datagram, now), now)
        except RemoteProtocolError as error:
            self.drops[error.code] += 1
            return False
        return True

    def receive_opened(self, opened: OpenedControl, now: float) -> None:
        """As `receive_datagram`, for the packet that the stateless listener has already unwrapped."""
        try:
            self.wire.record(opened, now)
            self._take(opened, now)
        except RemoteProtocolError as error:
            self.drops[error.code] += 1

    def handle_timeout(self, now: float) -> None:
        """Do what is due; harmless when called early."""
        if self.state is SessionState.DRAINING and now >= self._drain_until:
            self._finish()
        if self.is_live:
            self.keys.handle_timeout(now)
        if self.is_live:
            self._guarded(lambda: self.conversation.handle_timeout(now), now)
        self._settle(now)

    def admit(self, peer_id: int, now: float) -> None:
        """Server, after `Authenticated`: the peer may come in, with this DATA_V2 peer id."""
        self._guarded(lambda: self.conversation.admit(peer_id, now), now)
        self._settle(now)

    def refuse(self, reason: str, text: str, now: float) -> None:
        """Server, after `Authenticated`: AUTH_FAILED with `text`; `reason` is a handshake outcome."""
        self._guarded(lambda: self.conversation.refuse(reason, text, now), now)
        self._settle(now)

    def request_renegotiation(self, trigger: str, now: float, key_id: KeyId | None = None) -> bool:
        """Replace the data key; False where a renegotiation is already under way or not possible.

        With `key_id`: only if that is the newest key (a limit of one that is on its way out asks nothing).
        """
        newest = self.keys.primary
        is_wanted = key_id is None or (newest is not None and newest.key_id == key_id)
        started = is_wanted and self.keys.begin_renegotiation(trigger, now)
        self._settle(now)
        return started

    def nudge(self, now: float) -> None:
        """The way to the peer may have changed: everything unacknowledged is due now, with fresh timers."""
        for key in self.keys.newest_first():
            key.send.send_now(now)
        self._settle(now)

    def handle_float(self, now: float) -> None:
        """The peer was heard from another address: as `nudge`, but once in a retransmission time.

        Whoever has the peer's keys can claim addresses as fast as it can send.
        """
        at = max(now, self._hastened_at + self.settings.tls_timeout)
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
        self.leave(SessionInput.PEER_LEFT, "exit_notify", "the peer left", now)
        self._settle(now)

    def close(
        self, reason: str, detail: str, now: float, *, notify: bool = True, farewell: str | None = None
    ) -> None:
        """End the session from our side; `reason` as in `SessionDown`. The peer is told if `notify`.

        `farewell`: the control message that a server says in place of RESTART. A session that is already on
        its way out ends sooner.
        """
        if self.state is SessionState.DRAINING:
            self._drain_until = min(self._drain_until, now + CLOSE_SECONDS)
            self._drain_until_quiet = True
            self._settle(now)
        if not self.is_live:
            return
        quiet = not (notify and self.state is SessionState.ESTABLISHED)
        if not quiet:
            self._say_goodbye(now, farewell)
        drain = 0.0 if quiet else CLOSE_SECONDS
        self.leave(SessionInput.CLOSE_REQUESTED, reason, detail, now, drain=drain)
        self._settle(now)

    def end_now(self) -> None:
        """A session on its way out ends at once: what is still unacknowledged is not repeated."""
        if self.state is SessionState.DRAINING:
            self._finish()

    def dismiss(self, detail: str, text: str, now: float) -> None:
        """Server: end as `replaced` and tell the peer `text`; then `is_heard_out` shows if it was there.

        An OpenVPN client that is told to end does not acknowledge that any more: so a harmless message goes
        first, and the end follows its acknowledgement.
        """
        conversation = self.conversation
        if self.state is not SessionState.ESTABLISHED or not isinstance(conversation, ServerConversation):
            self.close("replaced", detail, now, notify=False)
            return
        try:
            self.say(f"INFO,{text}", now)
        except (TlsError, LocalProtocolError):
            self.close("replaced", detail, now, notify=False)
            return
        self._last_message = conversation.dismissal(text)
        self.leave(SessionInput.CLOSE_REQUESTED, "replaced", detail, now)
        self._settle(now)

    def reprieve(self) -> None:
        """The one for whom this session was dismissed has gone: the peer may come back at once."""
        if self._last_message is not None:
            self._last_message = "RESTART"

    # --- outputs ----------------------------------------------------------------------------------

    def poll_event(self) -> Event | None:
        """The oldest event not yet taken, control packets among them."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> Deadline | None:
        """When to call `handle_timeout` next; None once the session has ended."""
        if self.state is SessionState.CLOSED:
            return None
        deadlines = [(self._drain_until, "drain"), *self.keys.retransmissions()]
        if self.is_live:
            deadlines += [*self.keys.deadlines(), *self.conversation.deadlines()]
        at, reason = min(deadlines)
        return Deadline(MonotonicSeconds(at), reason)

    @property
    def is_live(self) -> bool:
        """Neither draining nor closed."""
        return self.state in (SessionState.HANDSHAKE, SessionState.ESTABLISHED)

    @property
    def progress(self) -> tuple[Proof, int]:
        """What the peer has proved, and a figure that grows whenever the handshake goes on."""
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
    def stalled_at(self) -> str:
        """What to look at if the peer says nothing more: the phase of the handshake, in words."""
        key = self.keys.primary
        return stalled(key) if key is not None else ""

    @property
    def rtt(self) -> float | None:
        """Round-trip seconds of the newest control packet that was sent once and acknowledged."""
        for key in self.keys.newest_first():
            if key.send.last_rtt is not None:
                return key.send.last_rtt
        return None

    # --- for keys and conversation ----------------------------------------------------------------

    def emit(self, event: Event) -> None:
        self._events.append(event)

    def transmit(self, now: float) -> None:
        """Send what is due, and acks, before anything else that this step brings about."""
        for key in self.keys.newest_first():
            self.wire.transmit(key, now)

    def make_key(self, key_id: KeyId, trigger: str, reset: Opcode | None, now: float) -> KeyState:
        return KeyState(
            key_id,
            self._make_engine(),
            now,
            hand_window=self.settings.hand_window,
            tls_timeout=self.settings.tls_timeout,
            room=self.wire.payload_room(self.settings.tls_mtu),
            trigger=trigger,
            reset=reset,
        )

    def establish(self) -> None:
        self._step(SessionInput.KEYS_READY)
        self._was_established = True

    def elapsed(self, now: float) -> Seconds:
        """Since the session began."""
        return Seconds(now - self._started_at)

    def say(self, text: str, now: float) -> None:
        """Send one control message through the newest TLS session that can carry it.

        Raises:
            TlsError: that TLS session is dead.
            LocalProtocolError: there is none yet.
        """
        key = self._speaker()
        if key is None:
            raise LocalProtocolError("no TLS session can carry a message yet")
        key.write(serialize_message(text), now)

    def fail_key(
        self, key: KeyState, code: str, detail: str, now: float, *, is_refused: bool = False
    ) -> None:
        """One negotiation failed: the session too, unless an older key carries on.

        `is_refused`: the peer is not let in any more; then no older key carries on.
        """
        if key.phase is KeyPhase.DEAD:
            return
        if key.phase is KeyPhase.GENERATED:
            # Its data key is good; but without a control channel the session has no future. A lame duck
            # has none anyway.
            if key is self.keys.primary:
                self.leave(SessionInput.FAILED, "transport_closed", f"control channel: {detail}", now)
            return
        key.step(KeyInput.FAILED)
        if self.state is SessionState.HANDSHAKE:
            drain = 0.0 if code == "timeout" else DRAIN_SECONDS
            self.leave(SessionInput.FAILED, code, detail, now, drain=drain)
        elif self.state is SessionState.ESTABLISHED:
            self.emit(Renegotiated(key.trigger, code, Seconds(now - key.started_at), detail))
            if is_refused:
                self._say_goodbye(now)
                self.leave(SessionInput.FAILED, "auth_expired", detail, now)
            elif self.keys.has_usable:
                self.keys.plan_retry(key, now)
            else:
                self.leave(SessionInput.FAILED, "renegotiation_failed", detail, now)

    def leave(
        self,
        given: SessionInput,
        reason: str,
        detail: str,
        now: float,
        *,
        drain: float = DRAIN_SECONDS,
        retry_after: float = 0.0,
        next_remote: bool = False,
    ) -> None:
        """Traffic ends here; what must still be said or acknowledged has `drain` seconds. Idempotent."""
        if not self.is_live:
            return
        self._step(given)
        self._drain_until = now + drain
        # A server stays for the whole time also after a failure: what the peer repeats meets the end of this
        # session, and does not open a new one with the same cookie.
        self._drain_until_quiet = given is SessionInput.CLOSE_REQUESTED or (
            given is SessionInput.FAILED and self.settings.role is Role.CLIENT
        )
        if given is SessionInput.PEER_LEFT and not self._was_established:
            reason = "reset_by_peer"
        self.emit(
            SessionDown(
                reason,
                detail,
                self._was_established,
                self.elapsed(now),
                Seconds(retry_after),
                next_remote,
            )
        )

    # --- inside -----------------------------------------------------------------------------------

    def _step(self, given: SessionInput) -> None:
        target = TRANSITIONS.get((self.state, given))
        if target is None:
            raise LocalProtocolError(f"session: {given.value!r} while {self.state.value!r}")
        self.state = target

    def _take(self, opened: OpenedControl, now: float) -> None:
        if self.state is SessionState.CLOSED:
            return
        header = opened.header
        body = self.wire.parse(opened)
        key = self._key_for(header, body, now)
        if not self._first_heard:
            self._first_heard = True
            key.send.send_now(now)
        key.send.acknowledge(body.acks, now)
        if body.message_id is not None:
            key.store(body.message_id, header.opcode, body.payload)
        self._advance(key, now)
        self._settle(now)

    def _key_for(self, header: ControlHeader, body: ControlBody, now: float) -> KeyState:
        key = self.keys.find(header.key_id)
        if header.opcode is Opcode.SOFT_RESET_V1 and (key is None or key.phase is KeyPhase.DEAD):
            key = self.keys.answer_renegotiation(header.key_id, now) or key
        if key is None:
            raise RemoteProtocolError("unknown_key_id", f"key id {header.key_id} is not negotiated")
        return key

    def _advance(self, key: KeyState, now: float) -> None:
        if key.phase is KeyPhase.DEAD or not self.is_live:
            # Nothing is listened to any more; but the alert or the farewell shall get through.
            self._flush_alert(key, now)
            return
        try:
            key.advance(now)
            self._converse(key, now)
        except TlsError as error:
            self._flush_alert(key, now)
            self.fail_key(key, error.code, str(error), now, is_refused=isinstance(error, PeerRefusedError))
        except RemoteProtocolError as error:
            code = error.code if error.code in _PEER_FAULTS else "tls_failed"
            self.fail_key(key, code, str(error), now, is_refused=code == "auth_failed")

    def _guarded(self, step: Callable[[], None], now: float) -> None:
        """Run a step that may `say` something; a dead TLS session ends its key."""
        key = self._speaker()
        try:
            step()
        except TlsError as error:
            if key is not None:
                self.fail_key(key, error.code, str(error), now)

    def _speaker(self) -> KeyState | None:
        """The newest key whose TLS session can carry messages: both key messages stand before them."""
        for key in self.keys.newest_first():
            if key.is_exchanged and key.phase is not KeyPhase.DEAD:
                return key
        return None

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
                for text in key.messages.split(plaintext):
                    self._handle_message(parse_message(text), key, now)
        if not self.is_live or key.phase is not KeyPhase.EXCHANGE or not key.is_exchanged:
            return
        if self.conversation.terms is not None:
            # The peer may be a step ahead and seal with this key before its acknowledgement is here.
            self.keys.install(key, self.conversation.terms)
        if key.is_quiet:
            key.step(KeyInput.EXCHANGED)
            self.conversation.handle_active(key, now)

    def _handle_message(self, message: Message, key: KeyState, now: float) -> None:
        if self.is_live:
            self.conversation.handle_message(message, key, now)

    def _say_goodbye(self, now: float, farewell: str | None = None) -> None:
        terms = self.conversation.terms
        if farewell is None or self.settings.role is Role.CLIENT:
            farewell = self.conversation.farewell
        if farewell is not None and terms is not None and (terms.exit_by_control or farewell != "EXIT"):
            try:
                self.say(farewell, now)
            except TlsError:
                return
        elif farewell is not None:
            self.emit(SendPayload(OCC_EXIT))

    def _settle(self, now: float) -> None:
        self.transmit(now)
        if self.state is not SessionState.DRAINING:
            return
        quiet = all(key.is_quiet for key in self.keys.newest_first())
        if quiet and self._last_message is not None:
            self.is_heard_out = True
            text, self._last_message = self._last_message, None
            self._drain_until = now + DRAIN_SECONDS
            try:
                self.say(text, now)
            except (TlsError, LocalProtocolError):
                pass
            else:
                self.transmit(now)
                quiet = False
        if now >= self._drain_until or (self._drain_until_quiet and quiet):
            self._finish()

    def _finish(self) -> None:
        self._step(SessionInput.DRAINED)
        self.keys.close()
        self.emit(SessionEnded())
