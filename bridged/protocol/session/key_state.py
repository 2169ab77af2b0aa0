"""One key negotiation: a reliable control channel, a TLS handshake on it, two key messages.

Source: docs/protocol/control.md#4-4, #4-5 and #5.
Pure: callers pass `now`; the TLS engine is an argument.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from bridged.errors import LocalProtocolError, TlsError
from bridged.protocol.keys.key_exchange import ClientKeyMessage, ServerKeyMessage
from bridged.protocol.packets.early_negotiation import wants_key_again
from bridged.protocol.packets.packet import Opcode
from bridged.protocol.session.reliable import ReceiveVerdict, ReceiveWindow, SendWindow
from bridged.protocol.session.tls_session import TlsEngine
from bridged.units import KeyId

PENDING_TLS_OCTETS: Final = 64 * 1024
"""The most that we hold for a peer that acknowledges nothing."""


class KeyPhase(Enum):
    """Progress of one key (docs/protocol/control.md#4-4)."""

    PRE_START = "reset queued"
    START = "TLS handshake"
    EXCHANGE = "key messages"
    ACTIVE = "both key messages known, all own packets acknowledged"
    GENERATED = "data keys exist"
    DEAD = "failed"


class KeyInput(Enum):
    """What moves a key from one phase to the next."""

    RESETS_DONE = "own reset acknowledged, peer's reset seen"
    TLS_DONE = "TLS handshake complete"
    EXCHANGED = "key messages exchanged and acknowledged"
    DERIVED = "data keys derived"
    FAILED = "failed"


KEY_TRANSITIONS: Final[dict[tuple[KeyPhase, KeyInput], KeyPhase]] = {
    (KeyPhase.PRE_START, KeyInput.RESETS_DONE): KeyPhase.START,
    (KeyPhase.START, KeyInput.TLS_DONE): KeyPhase.EXCHANGE,
    (KeyPhase.EXCHANGE, KeyInput.EXCHANGED): KeyPhase.ACTIVE,
    (KeyPhase.ACTIVE, KeyInput.DERIVED): KeyPhase.GENERATED,
    # A client may derive as soon as it has the options, before its last packet is acknowledged.
    (KeyPhase.EXCHANGE, KeyInput.DERIVED): KeyPhase.GENERATED,
    (KeyPhase.PRE_START, KeyInput.FAILED): KeyPhase.DEAD,
    (KeyPhase.START, KeyInput.FAILED): KeyPhase.DEAD,
    (KeyPhase.EXCHANGE, KeyInput.FAILED): KeyPhase.DEAD,
    (KeyPhase.ACTIVE, KeyInput.FAILED): KeyPhase.DEAD,
    (KeyPhase.GENERATED, KeyInput.FAILED): KeyPhase.DEAD,
}


UNFINISHED: Final = frozenset({KeyPhase.PRE_START, KeyPhase.START, KeyPhase.EXCHANGE})
"""Phases that must be over before the handshake window is."""


class KeyState:
    """State of one key id; driven by `Session`.

    `reset` is the opcode that we open with. None: a stateless answer has already opened, so message ids start
    at 1. `room`: bytes of TLS that fit in one control packet. `wrapped_key`: bytes of a client's wrapped key,
    which its next packet carries, too, if the server asks for it. `started_at` and `give_up_at` are monotonic
    seconds. `client_message` and `server_message`: the two key messages, once known. `is_installed`: data
    under this key is accepted. `is_released`: see `release_tls`.

    Raises:
        TlsError: `receive` and `write`, with the handshake outcome.
        LocalProtocolError: a step that is no row of KEY_TRANSITIONS.
    """

    def __init__(
        self,
        key_id: KeyId,
        engine: TlsEngine,
        now: float,
        *,
        hand_window: float,
        tls_timeout: float,
        room: int,
        trigger: str,
        reset: Opcode | None,
        wrapped_key: int = 0,
    ) -> None:
        first = 0 if reset is not None else 1
        self.key_id = key_id
        self.engine = engine
        self.phase = KeyPhase.PRE_START
        self.started_at = now
        self.give_up_at = now + hand_window
        self.trigger = trigger
        self.send = SendWindow(tls_timeout=tls_timeout, first_message_id=first)
        self.inbox = ReceiveWindow(first_message_id=first)
        self.client_message: ClientKeyMessage | None = None
        self.server_message: ServerKeyMessage | None = None
        self.is_installed = False
        self.is_released = False
        self._tls_ends_at: int | None = None
        self._room = room
        self._wrapped_key = wrapped_key
        self._repeats_key = False
        self._was_exchanged = False
        self._pending = bytearray()
        self._reset_seen = reset is None
        if reset is not None:
            self.send.push(reset, b"", now)

    def step(self, given: KeyInput) -> None:
        target = KEY_TRANSITIONS.get((self.phase, given))
        if target is None:
            raise LocalProtocolError(f"key {self.key_id}: {given.value!r} while {self.phase.value!r}")
        self.phase = target

    @property
    def is_exchanged(self) -> bool:
        """Both key messages are known."""
        return self._was_exchanged or (self.client_message is not None and self.server_message is not None)

    @property
    def is_quiet(self) -> bool:
        """Everything of ours was sent and acknowledged."""
        return not self._pending and self.send.is_empty

    @property
    def has_spoken(self) -> bool:
        """TLS has sent something. At a server this shows that the client's first TLS message is complete."""
        return self.send.next_message_id > 1

    @property
    def packets_settled(self) -> int:
        """Count packets received in order, and packets of ours that were acknowledged. Never falls."""
        return self.inbox.next_message_id + self.send.acknowledged

    def note_tls_sent(self) -> None:
        """Note that our last handshake flight is queued: what comes later follows it."""
        if self._tls_ends_at is None:
            self._tls_ends_at = self.send.next_message_id

    @property
    def is_tls_acknowledged(self) -> bool:
        """The peer has all of our handshake flights."""
        oldest = self.send.oldest_message_id
        return self._tls_ends_at is not None and (oldest is None or oldest >= self._tls_ends_at)

    def store(self, message_id: int, opcode: Opcode, payload: bytes) -> ReceiveVerdict:
        """Take one control packet; `advance` then handles what can be delivered."""
        return self.inbox.receive(message_id, opcode, payload)

    def advance(self, now: float) -> None:
        """Deliver packets in order, run TLS, and queue its answers."""
        if self.is_released:
            while self.inbox.pop() is not None:
                pass
            return
        self._deliver()
        if self.phase is KeyPhase.PRE_START and self._reset_seen and self.send.is_empty:
            self.step(KeyInput.RESETS_DONE)
            try:
                self.engine.start()
            finally:
                self._collect()
            self._deliver()
        if self.phase is KeyPhase.START and self.engine.is_established:
            self.step(KeyInput.TLS_DONE)
        self.flush(now)

    def write(self, plaintext: bytes, now: float) -> None:
        """Send one TLS record of plaintext."""
        self.engine.write(plaintext)
        self._collect()
        self.flush(now)

    def flush(self, now: float) -> None:
        """Cut waiting TLS bytes into control packets while the send window has room."""
        self._collect()
        while self._pending and self.send.has_room:
            opcode, room = Opcode.CONTROL_V1, self._room
            if self._repeats_key:
                self._repeats_key = False
                opcode, room = Opcode.CONTROL_WKC_V1, max(1, room - self._wrapped_key)
            self.send.push(opcode, bytes(self._pending[:room]), now)
            del self._pending[:room]

    def forget_secrets(self) -> None:
        """Drop both key messages: their random values are not needed any more."""
        self._was_exchanged = self.is_exchanged
        self.client_message = None
        self.server_message = None

    def release_tls(self) -> None:
        """Free the TLS session: another key's speaks now. Packets of the peer are still acknowledged."""
        self.is_released = True
        self.engine.close()

    def give_up(self) -> None:
        """Send nothing more, and repeat nothing."""
        self.send.clear()
        self._pending.clear()

    def close(self) -> None:
        """Forget the TLS session and both key messages."""
        self.forget_secrets()
        self.give_up()
        self.engine.close()

    def _deliver(self) -> None:
        while True:
            if self.phase is KeyPhase.PRE_START and self._reset_seen:
                return
            packet = self.inbox.pop()
            if packet is None:
                return
            if not self._reset_seen:
                self._reset_seen = True
                if self._wrapped_key:
                    self._repeats_key = wants_key_again(packet.payload)
                continue
            if packet.payload:
                try:
                    self.engine.receive(packet.payload)
                finally:
                    self._collect()

    def _collect(self) -> None:
        self._pending += self.engine.take_ciphertext()
        if len(self._pending) > PENDING_TLS_OCTETS:
            raise TlsError("tls_failed", "too many TLS bytes wait for the peer's acknowledgements")
