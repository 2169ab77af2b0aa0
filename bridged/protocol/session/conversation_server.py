"""The server's part inside TLS: judge the client's key message, answer, push options.

Source: docs/protocol/control.md#5 to #8.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

import hmac
from typing import Final

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_exchange import (
    RANDOM_LENGTH,
    ClientKeyMessage,
    ServerKeyMessage,
    parse_client_key_message,
    serialize_server_key_message,
)
from bridged.protocol.packets import messages
from bridged.protocol.packets.framing import Framing
from bridged.protocol.packets.framing_choice import PUSHED, framing_for_client, is_asked_for
from bridged.protocol.packets.negotiation import (
    CIPHER_MISMATCH_REASON,
    PeerInfo,
    ProtocolFlags,
    choose_cipher_for_client,
)
from bridged.protocol.packets.options_string import (
    build_options_string,
    compare_options,
    foreign_compression,
    foreign_framing,
)
from bridged.protocol.packets.push import (
    FLAG_AEAD_EPOCH,
    FLAG_CC_EXIT,
    FLAG_DYN_TLS_CRYPT,
    FLAG_TLS_EKM,
    agreed_protocol_flags,
    serialize_push_reply,
)
from bridged.protocol.session.conversation import begin_traffic, link_options
from bridged.protocol.session.core import SessionCore
from bridged.protocol.session.events import Authenticated, ChallengeAnswered, Identified, LoginOffered
from bridged.protocol.session.key_slots import KeySlots
from bridged.protocol.session.key_state import KeyPhase, KeyState
from bridged.protocol.session.login import CR_TEXT, decode_base64
from bridged.protocol.session.states import SessionInput, SessionState
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.timers import SessionTimer
from bridged.protocol.session.tls_session import TlsSummary
from bridged.protocol.session.wire import SessionWire
from bridged.units import WirePeerId

PASSING_REFUSALS: Final = frozenset({"peer_limit", "login_limit"})
"""Refusals that may not last: a client must try again after them."""
PASSING_BACKOFF_SECONDS: Final = 3
LOGIN_BACKOFF_SECONDS: Final = 30

DISMISSED_SECONDS: Final = 60
"""How long a peer waits after another machine with its name has replaced it."""

REPEAT_SILENCE: Final = 30.0
"""PUSH_REQUESTs that are repeated within this time get no second answer."""


class ServerConversation:
    """The server's part; `Session` drives it. Emits `Authenticated`, then waits for `admit` or `refuse`."""

    farewell: messages.Message = messages.Restart()
    handover: messages.Message = messages.Restart("P" + messages.HANDED_OVER)

    def __init__(self, core: SessionCore, keys: KeySlots, wire: SessionWire) -> None:
        self.terms: Negotiated | None = None
        self._core = core
        self._keys = keys
        self._wire = wire
        self._info = PeerInfo()
        self._cipher: Cipher | None = None
        self._framing: Framing = "none"
        self._identity: TlsSummary | None = None
        self._username = ""
        self._has_password = False
        self._peer_id: WirePeerId | None = None
        self._push: tuple[str, ...] = core.settings.push
        self._token: str | None = None
        self._fresh_token: str | None = None
        self._unjudged: KeyState | None = None
        self._question: tuple[str | None, int] | None = None
        self._refusal: tuple[str, str] | None = None
        self._is_judged = False
        self._asked = False
        self._answered_at = -REPEAT_SILENCE

    # --- key messages -----------------------------------------------------------------------------

    def open(self, key: KeyState, now: float) -> None:
        """The client speaks first, but its certificate is known now."""
        if self._identity is None:
            self._identity = key.engine.summary()
            self._core.emit(Identified(self._identity))

    def receive_key_message(self, key: KeyState, plaintext: bytes, now: float) -> None:
        message = parse_client_key_message(plaintext)
        key.client_message = message
        if not self._is_judged:
            self._is_judged = True
            self._judge_first(message)
        elif not self._is_same(key.engine.summary(), message):
            raise RemoteProtocolError("auth_failed", "a renegotiation presents another certificate or user")
        elif self._core.settings.checks_login:
            # Without our key message the client cannot use the new key.
            self._unjudged = key
            self._core.emit(LoginOffered(message.username, message.password))
            return
        self._answer(key, now)

    def handle_active(self, key: KeyState, now: float) -> None:
        if self.terms is not None:
            self._keys.derive(key, self.terms, now)
            if self._fresh_token is not None:
                self._keys.say(f"PUSH_REPLY,auth-token {self._fresh_token}", now)
                self._fresh_token = None
            return
        # A client that never asks for its options is given up with the handshake window.
        self._core.timers.set(SessionTimer.PUSH_REQUEST, key.give_up_at)
        self._finish_if_ready(key, now)

    def _judge_first(self, message: ClientKeyMessage) -> None:
        assert self._identity is not None
        self._info = PeerInfo.parse(message.peer_info)
        self._username = message.username
        self._has_password = bool(message.username or message.password)
        try:
            self._framing = framing_for_client(self._core.settings.framing, self._info, message.options)
            foreign = foreign_framing(message.options, fragments=self._core.settings.fragment > 0)
            if self._framing == "none" and is_asked_for(message.options):
                foreign = foreign_compression()
            if foreign is not None:
                raise RemoteProtocolError("framing_mismatch", foreign.at("client"))
            if message.has_overlong_credentials:
                raise RemoteProtocolError("auth_failed", "user name or password is too long")
            self._cipher = self._choose_cipher(message.options)
        except RemoteProtocolError as error:
            text = CIPHER_MISMATCH_REASON if error.code == "cipher_mismatch" else error.message
            self._refusal = (error.code, text)
            return
        self._core.emit(
            Authenticated(
                self._identity,
                message.username,
                self._info.version,
                self._info.platform,
                message.password,
                "crtext" in (self._info.get("IV_SSO") or "").split(","),
            )
        )

    def _choose_cipher(self, options: str) -> Cipher:
        settings = self._core.settings
        return choose_cipher_for_client(settings.ciphers, self._info, options, settings.fallback_cipher)

    def _is_same(self, summary: TlsSummary, message: ClientKeyMessage) -> bool:
        first = self._identity
        return (
            first is not None
            and summary.peer_name == first.peer_name
            and hmac.compare_digest(summary.peer_fingerprint, first.peer_fingerprint)
            and message.username == self._username
        )

    def _answer(self, key: KeyState, now: float) -> None:
        """Send our key message, to a refused client as well (docs/protocol/control.md#4-4).

        It names a framing if the client's does: clients warn of a difference.
        """
        random = self._core.random_bytes
        is_asked = key.client_message is not None and is_asked_for(key.client_message.options)
        framing: Framing = self._framing if is_asked else "none"
        key.server_message = ServerKeyMessage(
            random1=random(RANDOM_LENGTH),
            random2=random(RANDOM_LENGTH),
            options=build_options_string(link_options(self._core.settings, framing)),
        )
        key.write(serialize_server_key_message(key.server_message), now)

    def dismissal(self, text: str) -> messages.Message | None:
        """The message that ends a replaced peer: wait, if it knows how to; else reconnect.

        AUTH_FAILED without TEMP, and HALT, would end an OpenVPN client's process for good.
        """
        if self._info.protocol & ProtocolFlags.AUTH_FAILED_TEMP:
            return messages.AuthFailed(text, messages.AuthFailedKind.TEMPORARY, DISMISSED_SECONDS, "no")
        return messages.Restart(text=text)

    # --- admission --------------------------------------------------------------------------------

    def admit(
        self, peer_id: int, now: float, push: tuple[str, ...] | None = None, token: str | None = None
    ) -> None:
        """Let the authenticated peer in, with this DATA_V2 peer id. `push` replaces the settings' options."""
        if self._identity is None:
            raise LocalProtocolError("no peer to admit yet")
        self._peer_id = WirePeerId(peer_id)
        self._question = None
        self._push = self._core.settings.push if push is None else push
        self._token = token
        self._finish_first(now)

    def refuse(self, reason: str, text: str, now: float) -> None:
        """Turn the authenticated peer away with `text`; `reason` is a handshake outcome."""
        if self._identity is None:
            raise LocalProtocolError("no peer to refuse yet")
        self._refusal = (reason, text)
        self._finish_first(now)

    def challenge(self, text: str | None, seconds: int, now: float) -> None:
        """Ask the peer for a one-time code, and give it so long; without `text` it only has to wait."""
        self._question = (text, seconds)
        self._finish_first(now)

    def _ask(self, now: float) -> None:
        assert self._question is not None
        (text, seconds), self._question = self._question, None
        if text is not None:
            self._keys.say(messages.Info(f"{CR_TEXT}R,E:{text}", pre=True), now)
        knows_keywords = bool(self._info.protocol & ProtocolFlags.AUTH_PENDING_KEYWORDS)
        self._keys.say(messages.AuthPending(seconds if knows_keywords else None), now)
        self._core.timers.set(SessionTimer.PUSH_REQUEST, now + seconds)

    def accept_login(self, now: float, token: str | None = None) -> None:
        """The password or token of a renegotiation is right: go on with it."""
        key, self._unjudged = self._unjudged, None
        if key is None or key.phase is not KeyPhase.EXCHANGE or not self._core.is_live:
            return
        self._fresh_token = token
        self._answer(key, now)
        if self.terms is not None:
            # The client may seal with this key as soon as it has our answer.
            self._keys.install(key, self.terms)

    def reject_login(self, text: str, now: float, *, is_expired: bool = False) -> None:
        """The password or token of a renegotiation is wrong: end the session, and say why."""
        key, self._unjudged = self._unjudged, None
        if not self._core.is_live:
            return
        kind = messages.AuthFailedKind.SESSION_EXPIRED if is_expired else messages.AuthFailedKind.REFUSED
        try:
            if key is not None and key.phase is KeyPhase.EXCHANGE:
                # OpenVPN hears messages under its newest key only, and not before our key message.
                self._answer(key, now)
            self._keys.say(messages.AuthFailed(text, kind), now)
        finally:
            detail = f"{self._peer_name} is refused: {text}"
            self._core.leave(SessionInput.FAILED, "auth_expired", detail, now)

    def _finish_first(self, now: float) -> None:
        key = self._keys.primary
        if key is not None and key.phase is KeyPhase.ACTIVE:
            self._finish_if_ready(key, now)

    def _finish_if_ready(self, key: KeyState, now: float) -> None:
        if self.terms is not None or self._core.state is not SessionState.HANDSHAKE:
            return
        if self._refusal is not None:
            reason, text = self._refusal
            self._say_refused(reason, text, now)
            # What a challenge names stands for the password, which is in no log.
            shown = "CRV1: it is asked for a one-time code" if text.startswith("CRV1:") else text
            self._core.leave(SessionInput.FAILED, reason, f"{self._peer_name} is refused: {shown}", now)
        elif self._question is not None:
            self._ask(now)
        elif self._peer_id is not None and self._may_push():
            self._agree(key, now)

    def _say_refused(self, reason: str, text: str, now: float) -> None:
        """Say AUTH_FAILED. A passing refusal is said only to clients that know it as one."""
        if reason not in PASSING_REFUSALS:
            self._keys.say(messages.AuthFailed(text), now)
        elif self._info.protocol & ProtocolFlags.AUTH_FAILED_TEMP:
            temporary = messages.AuthFailedKind.TEMPORARY
            is_login = reason == "login_limit"
            seconds = LOGIN_BACKOFF_SECONDS if is_login else PASSING_BACKOFF_SECONDS
            advance: messages.Advance = "no" if is_login else "remote"
            self._keys.say(messages.AuthFailed(text, temporary, seconds, advance), now)

    @property
    def _peer_name(self) -> str:
        return self._identity.peer_name if self._identity is not None else "the peer"

    def _may_push(self) -> bool:
        return self._asked or bool(self._info.protocol & ProtocolFlags.REQUEST_PUSH)

    # --- control messages -------------------------------------------------------------------------

    def handle_message(self, message: messages.Message, key: KeyState, now: float) -> None:
        match message:
            case messages.PushRequest():
                self._asked = True
                if self.terms is not None:
                    self._say_options(now)
                elif key.phase is KeyPhase.ACTIVE:
                    self._finish_if_ready(key, now)
            case messages.ChallengeResponse(text) if self.terms is None:
                self._core.emit(ChallengeAnswered(decode_base64(text) or ""))
            case messages.Exit(is_handed_over):
                self._core.leave(
                    SessionInput.PEER_LEFT,
                    "exit_notify",
                    "the client restarts" if is_handed_over else "the client left",
                    now,
                    is_handed_over=is_handed_over,
                )
            case _:
                pass

    def handle_timeout(self, now: float) -> None:
        if self._core.timers.take(SessionTimer.PUSH_REQUEST, now):
            self._core.leave(SessionInput.FAILED, "push_failed", "the client never asked for options", now)

    # --- terms ------------------------------------------------------------------------------------

    def _agree(self, key: KeyState, now: float) -> None:
        settings = self._core.settings
        assert self._cipher is not None
        assert self._identity is not None
        assert key.client_message is not None
        flags = self._flags()
        expected = build_options_string(link_options(settings).mirrored())
        self.terms = Negotiated(
            cipher=self._cipher,
            transmit_peer_id=self._peer_id if self._info.protocol & ProtocolFlags.DATA_V2 else None,
            ping=settings.ping,
            ping_restart=2 * settings.ping_restart,
            tun_mtu=settings.tun_mtu,
            key_derivation="exporter" if self._uses_exporter() else "prf",
            is_epoch=FLAG_AEAD_EPOCH in flags,
            exit_by_control=FLAG_CC_EXIT in flags,
            dynamic_wrap=FLAG_DYN_TLS_CRYPT in flags,
            tls=self._identity,
            framing=self._framing,
            fragment=settings.fragment,
            peer_version=self._info.version,
            peer_platform=self._info.platform,
            warnings=tuple(compare_options(expected, key.client_message.options)),
            has_unasked_password=self._has_password and not settings.checks_login,
        )
        self._core.timers.stop(SessionTimer.PUSH_REQUEST)
        self._say_options(now)
        begin_traffic(self._core, self._keys, self._wire, key, self.terms, now)

    def _uses_exporter(self) -> bool:
        announced = bool(self._info.protocol & ProtocolFlags.TLS_KEY_EXPORT)
        return self._core.settings.use_exporter and announced

    def _flags(self) -> tuple[str, ...]:
        wanted = [FLAG_CC_EXIT]
        if self._core.settings.use_exporter:
            wanted += [FLAG_TLS_EKM, FLAG_DYN_TLS_CRYPT]
            if self._cipher is not None and not self._cipher.is_cbc:
                wanted.append(FLAG_AEAD_EPOCH)
        return agreed_protocol_flags(wanted, self._info.protocol)

    def _say_options(self, now: float) -> None:
        if now - self._answered_at < REPEAT_SILENCE:
            return
        self._answered_at = now
        for text in serialize_push_reply(self._options()):
            self._keys.say(text, now)

    def _options(self) -> list[str]:
        settings = self._core.settings
        options = list(self._push)
        if settings.ping:
            options.append(f"ping {settings.ping}")
        if settings.ping_restart:
            options.append(f"ping-restart {settings.ping_restart}")
        if self._framing != "none":
            options.append(PUSHED[self._framing])
        if self._info.protocol & ProtocolFlags.DATA_V2:
            options.append(f"peer-id {self._peer_id}")
        if self._token is not None:
            options.append(f"auth-token {self._token}")
        if self._info.accepts_pushed_cipher:
            assert self._cipher is not None
            options.append(f"cipher {self._cipher.value}")
        flags = self._flags()
        if flags:
            options.append(f"protocol-flags {' '.join(flags)}")
        elif self._uses_exporter():
            options.append("key-derivation tls-ekm")
        if self._info.mtu is not None and self._info.mtu >= settings.tun_mtu:
            options.append(f"tun-mtu {settings.tun_mtu}")
        return options
