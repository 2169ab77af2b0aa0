"""The key slots of one session: primary, lame duck, and keys that are about to go.

Source: docs/protocol/control.md#4-3 to #4-5.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bridged.errors import LocalProtocolError
from bridged.protocol.keys.key_derivation import (
    EXPORTER_DATA_KEYS,
    KEY_MATERIAL_LENGTH,
    derive_by_prf,
    slice_keys,
)
from bridged.protocol.packets.messages import Message, serialize_message
from bridged.protocol.packets.packet import MAX_KEY_ID, Opcode
from bridged.protocol.role import Role
from bridged.protocol.session.core import SessionCore
from bridged.protocol.session.events import InstallKey, RemoveKey, Renegotiated, UseKey
from bridged.protocol.session.handshake_hints import hint
from bridged.protocol.session.key_state import UNFINISHED, KeyInput, KeyPhase, KeyState
from bridged.protocol.session.states import SessionInput
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.timers import SessionTimer
from bridged.protocol.session.tls_session import TlsEngineFactory
from bridged.protocol.session.wire import SessionWire
from bridged.units import KeyId, Seconds

RETIRE_SECONDS: Final = 10.0
"""How long a key that no longer seals still opens packets that are on the way."""


class KeySlots:
    """Which keys exist, and which one seals.

    `primary` is the newest key. `lame_duck` is the one before it; it goes on sealing until the primary may.
    Emits InstallKey, UseKey and RemoveKey.
    """

    def __init__(self, core: SessionCore, wire: SessionWire, make_engine: TlsEngineFactory) -> None:
        self.primary: KeyState | None = None
        self.lame_duck: KeyState | None = None
        self._core = core
        self._wire = wire
        self._make_engine = make_engine
        self._sealing: KeyId | None = None

    # --- what there is ----------------------------------------------------------------------------

    def newest_first(self) -> Iterator[KeyState]:
        """Both key states, the primary first."""
        if self.primary is not None:
            yield self.primary
        if self.lame_duck is not None:
            yield self.lame_duck

    def find(self, key_id: int) -> KeyState | None:
        return next((key for key in self.newest_first() if key.key_id == key_id), None)

    @property
    def has_usable(self) -> bool:
        """Some key can carry data."""
        return any(key.phase is KeyPhase.GENERATED for key in self.newest_first())

    # --- sending ----------------------------------------------------------------------------------

    def transmit(self, now: float) -> None:
        """Send the packets that are due, and acknowledgements, of both keys; restart the timers of both."""
        for key in self.newest_first():
            self._wire.transmit(key, now)
        self._set_timers()

    @property
    def speaker(self) -> KeyState | None:
        """The newest key whose TLS session can carry messages: both key messages come before them."""
        for key in self.newest_first():
            if key.is_exchanged and key.phase is not KeyPhase.DEAD:
                return key
        return None

    def say(self, message: Message | str, now: float) -> None:
        """Send one control message through the newest TLS session that can carry it.

        Raises:
            TlsError: that TLS session is dead.
            LocalProtocolError: there is none yet.
        """
        key = self.speaker
        if key is None:
            raise LocalProtocolError("no TLS session can carry a message yet")
        key.write(serialize_message(message), now)

    # --- time -------------------------------------------------------------------------------------

    def take_overdue(self, now: float) -> list[tuple[KeyState, str]]:
        """Silence keys whose handshake window is over.

        Returns those whose negotiation was still going on, each with a hint for the operator.
        """
        overdue = []
        for key in self.newest_first():
            if now < key.give_up_at:
                continue
            if key.phase in UNFINISHED:
                overdue.append((key, hint(key)))
            if key.phase in UNFINISHED or key.phase is KeyPhase.DEAD:
                key.give_up()
        return overdue

    def handle_timeout(self, now: float) -> None:
        """Change over to the newest key, and drop keys whose time is over."""
        self._change_over(now)
        if self._core.timers.take(SessionTimer.LAME_DUCK, now):
            self._end_lame_duck(now)
        for key_id in self._core.timers.due_keys(SessionTimer.KEY_RETIRES, now):
            self._forget(key_id)

    def _set_timers(self) -> None:
        timers = self._core.timers
        timers.stop_all(SessionTimer.RETRANSMISSION)
        timers.stop_all(SessionTimer.HANDSHAKE_WINDOW)
        for key in self.newest_first():
            next_send = key.send.next_timeout()
            if next_send is not None:
                timers.set(SessionTimer.RETRANSMISSION, next_send, key.key_id)
            # A dead key still repeats its alert until its window is over.
            if key.phase in UNFINISHED or (key.phase is KeyPhase.DEAD and not key.is_quiet):
                timers.set(SessionTimer.HANDSHAKE_WINDOW, key.give_up_at, key.key_id)

    # --- slots ------------------------------------------------------------------------------------

    def open(self, key_id: KeyId, trigger: str, reset: Opcode | None, now: float) -> KeyState:
        """Begin to negotiate a new primary key; `reset` as in `KeyState`."""
        settings = self._core.settings
        self.primary = KeyState(
            key_id,
            self._make_engine(),
            now,
            hand_window=settings.hand_window,
            tls_timeout=settings.tls_timeout,
            room=self._wire.payload_room(settings.tls_mtu),
            trigger=trigger,
            reset=reset,
            wrapped_key=self._wire.wrapped_key_length if reset is Opcode.HARD_RESET_CLIENT_V3 else 0,
        )
        self._core.timers.stop(SessionTimer.RENEGOTIATION)
        return self.primary

    def make_lame(self, old: KeyState, now: float) -> KeyId:
        """The primary `old` becomes the lame duck. Returns the key id of its successor."""
        timers = self._core.timers
        if self.lame_duck is not None:
            dying = self.lame_duck
            if self._sealing != old.key_id:
                self._seal_with(old, now)
            if dying.phase is KeyPhase.GENERATED:
                # The peer may seal with it until it has finished the key after it, too.
                timers.set(SessionTimer.KEY_RETIRES, timers.at(SessionTimer.LAME_DUCK), dying.key_id)
            dying.close()
        self.lame_duck = old
        timers.set(SessionTimer.LAME_DUCK, now + self._core.settings.tran_window)
        # Key ids come round again: the old key of this id must be gone.
        successor = next_key_id(old.key_id)
        self._forget(successor)
        return successor

    def replace_failed(self, failed: KeyState, now: float, *, is_ahead: bool) -> KeyId:
        """Drop a primary whose negotiation failed; the lame duck carries on.

        Returns the key id of the next attempt: the same, or the one after it if the peer `is_ahead`, that is,
        has finished this negotiation.
        """
        timers = self._core.timers
        if failed.is_installed:
            timers.set(SessionTimer.KEY_RETIRES, timers.at(SessionTimer.LAME_DUCK), failed.key_id)
        if is_ahead and failed.is_installed:
            # Only the last acknowledgement was lost: the peer has this key, and may have changed over.
            self._seal_with(failed, now)
        key_id = next_key_id(failed.key_id) if is_ahead else failed.key_id
        failed.close()
        self._forget(key_id)
        return key_id

    def close(self) -> None:
        for key in self.newest_first():
            key.close()

    # --- data keys --------------------------------------------------------------------------------

    def install(self, key: KeyState, terms: Negotiated) -> None:
        """Make the data keys of a key whose messages are exchanged, and accept data under them."""
        if key.is_installed:
            return
        if terms.key_derivation == "exporter":
            material = key.engine.export(EXPORTER_DATA_KEYS, KEY_MATERIAL_LENGTH)
        else:
            material = self._material_by_prf(key)
        settings = self._core.settings
        cipher, is_epoch = terms.cipher, terms.is_epoch
        self._core.emit(
            InstallKey(
                slice_keys(
                    material, settings.role, cipher, key.key_id, digest=settings.digest, is_epoch=is_epoch
                )
            )
        )
        key.is_installed = True

    def derive(self, key: KeyState, terms: Negotiated, now: float) -> None:
        """Complete this key's negotiation: later ones start from it, and it seals as soon as it may."""
        timers = self._core.timers
        self.install(key, terms)
        is_first = self._sealing is None
        key.step(KeyInput.DERIVED)
        key.forget_secrets()
        self._schedule_renegotiation(now)
        if is_first:
            self._seal_with(key, now)
            return
        usable_at = key.started_at + self._wait_before_sealing(key)
        timers.set(SessionTimer.KEY_CHANGE, usable_at)
        # By then the peer, too, seals with this key.
        timers.hasten_all(SessionTimer.KEY_RETIRES, max(now, usable_at) + RETIRE_SECONDS)
        self._core.emit(
            Renegotiated(key.trigger, "established", Seconds(now - key.started_at), tls=key.engine.summary())
        )
        self._change_over(now)

    def _wait_before_sealing(self, key: KeyState) -> float:
        """Seconds from the renegotiation's start (docs/protocol/control.md#4-5, rule 4).

        The peer makes its key once it, too, has every acknowledgement. But its next renegotiation throws our
        old key away: wait at most half of the time for which the key before was the newest.
        """
        settings = self._core.settings
        wait = min(settings.hand_window, settings.reneg_seconds / 2 or settings.hand_window)
        if self.lame_duck is not None:
            wait = min(wait, (key.started_at - self.lame_duck.started_at) / 2)
        return wait

    def _material_by_prf(self, key: KeyState) -> bytes:
        assert key.client_message is not None
        assert key.server_message is not None
        assert self._wire.remote_session_id is not None
        ids = (self._wire.local_session_id, self._wire.remote_session_id)
        if self._core.settings.role is Role.SERVER:
            ids = (ids[1], ids[0])
        return derive_by_prf(key.client_message, key.server_message, *ids)

    def _schedule_renegotiation(self, now: float) -> None:
        settings = self._core.settings
        if not settings.reneg_seconds:
            return
        seconds = settings.reneg_seconds
        if settings.role is Role.SERVER:
            # Clients that came together must not renegotiate together (docs/protocol/control.md#4-5, rule 1).
            seconds *= 1 - 0.1 * self._core.random_bytes(1)[0] / 255
        self._core.timers.set(SessionTimer.RENEGOTIATION, now + seconds)

    def _seal_with(self, key: KeyState, now: float) -> None:
        # The peer needs these packets to open the first frame under this key.
        self.transmit(now)
        self._sealing = key.key_id
        self._core.timers.stop(SessionTimer.KEY_CHANGE)
        self._core.emit(UseKey(key.key_id))

    def _change_over(self, now: float) -> None:
        if self.primary is not None and self._core.timers.is_due(SessionTimer.KEY_CHANGE, now):
            self._seal_with(self.primary, now)
            if self.lame_duck is not None and self.lame_duck.is_quiet:
                self.lame_duck.release_tls()

    def _end_lame_duck(self, now: float) -> None:
        dying, self.lame_duck = self.lame_duck, None
        assert dying is not None
        if self.primary is not None and self.primary.phase is KeyPhase.GENERATED:
            if self._sealing != self.primary.key_id:
                self._seal_with(self.primary, now)
        else:
            self._core.leave(
                SessionInput.FAILED, "renegotiation_failed", "the last data key has expired", now
            )
        self._core.emit(RemoveKey(dying.key_id))
        dying.close()

    def _forget(self, key_id: KeyId) -> None:
        if self._core.timers.stop(SessionTimer.KEY_RETIRES, key_id):
            self._core.emit(RemoveKey(key_id))


def next_key_id(key_id: int) -> KeyId:
    """0, 1 … 7, 1 …: only the first key of a session has id 0 (docs/protocol/control.md#4-5)."""
    return KeyId(key_id % MAX_KEY_ID + 1)
