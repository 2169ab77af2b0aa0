"""The key slots of one session: primary, lame duck, and keys that are about to go.

Source: docs/protocol/control.md#4-3 to #4-5.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.key_derivation import (
    EXPORTER_DATA_KEYS,
    KEY_MATERIAL_LENGTH,
    derive_by_prf,
    slice_keys,
)
from bridged.protocol.packets.packet import MAX_KEY_ID, Opcode
from bridged.protocol.role import Role
from bridged.protocol.session.events import InstallKey, RemoveKey, Renegotiated, UseKey
from bridged.protocol.session.key_state import KeyInput, KeyPhase, KeyState
from bridged.protocol.session.states import SessionInput, SessionState
from bridged.protocol.session.terms import Negotiated
from bridged.units import KeyId, Seconds

if TYPE_CHECKING:
    from bridged.protocol.session.session import Session

RETIRE_SECONDS: Final = 10.0
"""A key that nobody seals with any more still opens what is on the way."""
PEER_RENEGOTIATIONS_BURST: Final = 8
PEER_RENEGOTIATION_SECONDS: Final = 1.0
"""A peer may begin so many renegotiations at once, then one in so many seconds."""

_UNFINISHED: Final = frozenset({KeyPhase.PRE_START, KeyPhase.START, KeyPhase.EXCHANGE})
STALLED: Final = {
    KeyPhase.PRE_START: "no answer: compare address, port, firewall, and the tls-auth or tls-crypt key",
    KeyPhase.START: "the other end went silent in the TLS handshake: it may refuse our certificate (its log "
    "says why), or large packets are lost",
    # OpenVPN drops a client whose certificate it refuses without sending its TLS alert.
    KeyPhase.EXCHANGE: "the other end went silent after TLS: it may refuse our certificate; its log says why",
}
"""What to look at where a handshake ran out of time."""
_SILENT_AFTER_TLS: Final = (
    "the server took our certificate, then went silent: it may ask for a user name and password "
    "(`auth-user-pass-verify`), which this client cannot send; its log says why"
)
_NEVER: Final = float("inf")


class SessionKeys:
    """Which keys exist, which one seals, and when that changes.

    `primary` is the newest; `lame_duck` the one before it, which keeps sealing until the new one may be
    taken over to. Emits InstallKey, UseKey and RemoveKey through the session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.primary: KeyState | None = None
        self.lame_duck: KeyState | None = None
        self._sealing: KeyId | None = None
        self._lame_dies_at = _NEVER
        self._retiring: dict[KeyId, float] = {}
        self._renegotiate_at = _NEVER
        self._peer_may = float(PEER_RENEGOTIATIONS_BURST)
        self._paced_at = 0.0

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

    def retransmissions(self) -> list[tuple[float, str]]:
        """When something must be repeated; this goes on while the session drains."""
        timeouts = (key.send.next_timeout() for key in self.newest_first())
        return [(at, "retransmission") for at in timeouts if at is not None]

    def deadlines(self) -> list[tuple[float, str]]:
        """Everything else; only while the session is live."""
        times = [(self._lame_dies_at, "lame duck"), (self._renegotiate_at, "renegotiation")]
        times += [(at, "key retires") for at in self._retiring.values()]
        for key in self.newest_first():
            if key.phase in _UNFINISHED or (key.phase is KeyPhase.DEAD and not key.is_quiet):
                times.append((key.give_up_at, "handshake window"))
            if key.phase is KeyPhase.GENERATED and key.key_id != self._sealing and key is self.primary:
                times.append((key.usable_at, "key change"))
        return times

    def handle_timeout(self, now: float) -> None:
        for key in list(self.newest_first()):
            if now < key.give_up_at:
                continue
            if key.phase is KeyPhase.DEAD:
                key.give_up()
            elif key.phase in _UNFINISHED:
                detail = stalled(key)
                key.give_up()
                self._session.fail_key(key, "timeout", detail, now)
        self._change_over(now)
        self._retire(now)
        if now >= self._renegotiate_at:
            self._renegotiate_at = _NEVER
            self.begin_renegotiation("time", now)

    # --- renegotiation ----------------------------------------------------------------------------

    def begin_renegotiation(self, trigger: str, now: float) -> bool:
        """Open the next key id with a soft reset; False while the present one is not complete.

        After a failed one the same key id is tried again, from the old key that is still in use.
        """
        old = self.primary
        if old is None or self._session.state is not SessionState.ESTABLISHED:
            return False
        if old.phase is KeyPhase.GENERATED:
            self._push_out(old, now)
            key_id = _next_key_id(old.key_id)
        elif self._may_retry(old, now):
            # A client that knows both key messages knows that the server does, too: both take the next id.
            key_id = self._replace_failed(old, now, is_ahead=old.is_exchanged)
        else:
            return False
        self._open(key_id, trigger, now)
        return True

    def _open(self, key_id: KeyId, trigger: str, now: float) -> None:
        self.primary = self._session.make_key(key_id, trigger, Opcode.SOFT_RESET_V1, now)
        self._renegotiate_at = _NEVER

    def _may_retry(self, failed: KeyState, now: float) -> bool:
        """A server that knows both key messages cannot tell whether the client is through: it waits."""
        return (
            failed.phase is KeyPhase.DEAD
            and self.has_usable
            and now >= failed.give_up_at
            and not (failed.is_exchanged and self._session.settings.role is Role.SERVER)
        )

    def answer_renegotiation(self, key_id: int, now: float) -> KeyState | None:
        """The peer's soft reset; None where it is not the next key id or not its time (drop it).

        Raises:
            RemoteProtocolError: `renegotiation_rate`, too soon after the last one.
        """
        old = self.primary
        if old is None or self._session.state is not SessionState.ESTABLISHED:
            return None
        is_next = key_id == _next_key_id(old.key_id)
        if is_next and old.phase is KeyPhase.GENERATED:
            self._pace(now)
        if old.phase is KeyPhase.DEAD and self.has_usable and now >= old.give_up_at:
            # The peer tries again; or it was through with the failed one, and now wants the next.
            if key_id != old.key_id and not (is_next and old.is_exchanged):
                return None
            self._open(self._replace_failed(old, now, is_ahead=is_next), "peer", now)
            return self.primary
        return self.primary if is_next and self.begin_renegotiation("peer", now) else None

    def _pace(self, now: float) -> None:
        """Let the peer begin a renegotiation, unless it began many a moment ago; it repeats its reset."""
        spent = (now - self._paced_at) / PEER_RENEGOTIATION_SECONDS
        self._peer_may = min(float(PEER_RENEGOTIATIONS_BURST), self._peer_may + spent)
        self._paced_at = now
        if self._peer_may < 1.0:
            raise RemoteProtocolError("renegotiation_rate", "the peer renegotiates too often")
        self._peer_may -= 1.0

    def plan_retry(self, failed: KeyState, now: float) -> None:
        """The old key carries on until it must die; meanwhile try again.

        Not before the peer, too, has given the failed one up.
        """
        self._renegotiate_at = max(now, failed.give_up_at) + self._session.settings.hand_window

    def _replace_failed(self, failed: KeyState, now: float, *, is_ahead: bool) -> KeyId:
        """The key id to go on with after a failed renegotiation; the lame duck carries on."""
        if failed.is_installed:
            self._retiring[failed.key_id] = self._lame_dies_at
        if is_ahead and failed.is_installed:
            # Only the last acknowledgement was lost: the peer has this key, and may have changed over.
            self._seal_with(failed, now)
        key_id = _next_key_id(failed.key_id) if is_ahead else failed.key_id
        failed.close()
        self._forget(key_id)
        return key_id

    def _push_out(self, old: KeyState, now: float) -> None:
        if self.lame_duck is not None:
            dying = self.lame_duck
            if self._sealing != old.key_id:
                self._seal_with(old, now)
            if dying.phase is KeyPhase.GENERATED:
                # The peer may seal with it until it, too, is through with the key that follows.
                self._retiring[dying.key_id] = self._lame_dies_at
            dying.close()
        self.lame_duck = old
        self._lame_dies_at = now + self._session.settings.tran_window
        # A key id that comes round again must not meet its own past.
        self._forget(_next_key_id(old.key_id))

    # --- data keys --------------------------------------------------------------------------------

    def install(self, key: KeyState, terms: Negotiated) -> None:
        """Make the data keys of a key whose messages are exchanged, and accept data under them."""
        if key.is_installed:
            return
        session = self._session
        if terms.key_derivation == "exporter":
            material = key.engine.export(EXPORTER_DATA_KEYS, KEY_MATERIAL_LENGTH)
        else:
            material = self._material_by_prf(key)
        session.emit(InstallKey(slice_keys(material, session.settings.role, terms.cipher, key.key_id)))
        key.is_installed = True

    def derive(self, key: KeyState, terms: Negotiated, now: float) -> None:
        """This key's negotiation is complete: it is the one to go on from, and to seal with."""
        session = self._session
        self.install(key, terms)
        is_first = self._sealing is None
        key.step(KeyInput.DERIVED)
        key.forget_secrets()
        self._schedule_renegotiation(now)
        if is_first:
            self._seal_with(key, now)
            return
        key.usable_at = key.started_at + self._wait_before_sealing(key)
        # By then the peer, too, seals with this key.
        until = max(now, key.usable_at) + RETIRE_SECONDS
        self._retiring = {key_id: min(at, until) for key_id, at in self._retiring.items()}
        session.emit(
            Renegotiated(key.trigger, "established", Seconds(now - key.started_at), tls=key.engine.summary())
        )
        self._change_over(now)

    def _wait_before_sealing(self, key: KeyState) -> float:
        """Seconds from the renegotiation's start (control.md#4-5, rule 4).

        The peer makes its key when it, too, has every acknowledgement; but what it renegotiates again throws
        our old key away. So we do not wait longer than half of the time that the key before was the newest.
        """
        settings = self._session.settings
        wait = min(settings.hand_window, settings.reneg_seconds / 2 or settings.hand_window)
        if self.lame_duck is not None:
            wait = min(wait, (key.started_at - self.lame_duck.started_at) / 2)
        return wait

    def close(self) -> None:
        for key in self.newest_first():
            key.close()

    def _material_by_prf(self, key: KeyState) -> bytes:
        session = self._session
        assert key.client_message is not None
        assert key.server_message is not None
        assert session.remote_session_id is not None
        ids = (session.local_session_id, session.remote_session_id)
        if session.settings.role is Role.SERVER:
            ids = (ids[1], ids[0])
        return derive_by_prf(key.client_message, key.server_message, *ids)

    def _schedule_renegotiation(self, now: float) -> None:
        settings = self._session.settings
        if not settings.reneg_seconds:
            return
        seconds = settings.reneg_seconds
        if settings.role is Role.SERVER:
            # So that many clients that came at once do not renegotiate at once (control.md#4-5, rule 1).
            seconds *= 1 - 0.1 * self._session.random_bytes(1)[0] / 255
        self._renegotiate_at = now + seconds

    def _seal_with(self, key: KeyState, now: float) -> None:
        # What lets the peer open under this key goes out before the first frame under it.
        self._session.transmit(now)
        self._sealing = key.key_id
        self._session.emit(UseKey(key.key_id))

    def _change_over(self, now: float) -> None:
        key = self.primary
        if (
            key is not None
            and key.phase is KeyPhase.GENERATED
            and key.key_id != self._sealing
            and now >= key.usable_at
        ):
            self._seal_with(key, now)
            if self.lame_duck is not None and self.lame_duck.is_quiet:
                self.lame_duck.release_tls()

    def _retire(self, now: float) -> None:
        if self.lame_duck is not None and now >= self._lame_dies_at:
            self._end_lame_duck(self.lame_duck, now)
        for key_id in [key_id for key_id, at in self._retiring.items() if now >= at]:
            self._forget(key_id)

    def _end_lame_duck(self, dying: KeyState, now: float) -> None:
        self.lame_duck, self._lame_dies_at = None, _NEVER
        if self.primary is not None and self.primary.phase is KeyPhase.GENERATED:
            if self._sealing != self.primary.key_id:
                self._seal_with(self.primary, now)
        else:
            self._session.leave(
                SessionInput.FAILED, "renegotiation_failed", "the last data key has expired", now
            )
        self._session.emit(RemoveKey(dying.key_id))
        dying.close()

    def _forget(self, key_id: KeyId) -> None:
        if self._retiring.pop(key_id, None) is not None:
            self._session.emit(RemoveKey(key_id))


def stalled(key: KeyState) -> str:
    """What to look at where this key's negotiation stands still; empty where it does not."""
    if key.phase is KeyPhase.EXCHANGE and key.is_tls_acknowledged:
        return _SILENT_AFTER_TLS
    return STALLED.get(key.phase, "")


def _next_key_id(key_id: int) -> KeyId:
    """0, 1 … 7, 1 …: key id 0 only opens a session (control.md#4-5)."""
    return KeyId(key_id % MAX_KEY_ID + 1)
