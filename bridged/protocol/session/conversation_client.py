"""The client's part inside TLS: its key message first, then the pushed options.

Source: docs/protocol/control.md#5, #6 and #7.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from typing import Final

from bridged.errors import LoginUnavailable, RemoteProtocolError
from bridged.protocol.keys.key_exchange import (
    PRE_MASTER_LENGTH,
    RANDOM_LENGTH,
    ClientKeyMessage,
    parse_server_key_message,
    serialize_client_key_message,
)
from bridged.protocol.packets import messages
from bridged.protocol.packets.framing_choice import STUBS, framing_of_server
from bridged.protocol.packets.negotiation import (
    PeerInfo,
    ProtocolFlags,
    accept_pushed_cipher,
    client_peer_info,
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
    PushedOptions,
    PushReplyAssembler,
    parse_pushed_options,
)
from bridged.protocol.session.conversation import TUN_MTU_ACCEPTED, begin_traffic, link_options
from bridged.protocol.session.core import SessionCore
from bridged.protocol.session.events import ExpectKey
from bridged.protocol.session.key_slots import KeySlots
from bridged.protocol.session.key_state import KeyPhase, KeyState
from bridged.protocol.session.login import (
    CR_TEXT,
    Credentials,
    DynamicChallenge,
    decode_base64,
    encode_base64,
)
from bridged.protocol.session.states import SessionInput, SessionState
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.timers import SessionTimer
from bridged.protocol.session.wire import SessionWire

FIRST_PUSH_REQUEST: Final = 1.0
PUSH_REQUEST_INTERVAL: Final = 5.0
HALT_RETRY_SECONDS: Final = 60.0
"""After HALT an OpenVPN client ends. Ours runs as a service: it waits this long and comes back."""

NO_REASON: Final = (
    "it gives no reason. It may ask for a user name and password (`auth-user-pass-verify`): set `login`; "
    "its log says why"
)
WRONG_LOGIN: Final = "user name or password may be wrong: look at `login`, then reload"
CHALLENGE_RETRY_SECONDS: Final = 300.0
"""Nobody is there to answer."""
UNREADABLE_RETRY_SECONDS: Final = 30.0
"""A password file that cannot be read may appear later."""

_ALWAYS: Final = ProtocolFlags.DATA_V2 | ProtocolFlags.REQUEST_PUSH
_WITH_EXPORTER: Final = (
    ProtocolFlags.TLS_KEY_EXPORT
    | ProtocolFlags.AUTH_PENDING_KEYWORDS
    | ProtocolFlags.CC_EXIT
    | ProtocolFlags.AUTH_FAILED_TEMP
    | ProtocolFlags.DYNAMIC_TLS_CRYPT
    | ProtocolFlags.AEAD_EPOCH
)


class ClientConversation:
    """The client's part; `Session` drives it.

    Asks for options 1 s after the keys, then every 5 s (docs/protocol/control.md#6).
    """

    farewell: messages.Message = messages.Exit()
    handover: messages.Message = messages.Exit(is_handed_over=True)

    def __init__(self, core: SessionCore, keys: KeySlots, wire: SessionWire) -> None:
        self.terms: Negotiated | None = None
        self._core = core
        self._keys = keys
        self._wire = wire
        self._pushes = PushReplyAssembler()
        self._sent: Credentials | None = None

    # --- key messages -----------------------------------------------------------------------------

    def open(self, key: KeyState, now: float) -> None:
        if key.client_message is not None or key.phase is not KeyPhase.EXCHANGE:
            return
        settings = self._core.settings
        random = self._core.random_bytes
        if not self._prepare_login(now):
            return
        sent = self._sent or Credentials("", "")
        key.note_tls_sent()
        key.client_message = ClientKeyMessage(
            pre_master=random(PRE_MASTER_LENGTH),
            random1=random(RANDOM_LENGTH),
            random2=random(RANDOM_LENGTH),
            options=build_options_string(link_options(settings)),
            username=sent.username,
            password=sent.password,
            peer_info=self._peer_info().serialize(),
        )
        if self.terms is not None:
            self._core.emit(ExpectKey(key.key_id))
        key.write(serialize_client_key_message(key.client_message), now)

    def _prepare_login(self, now: float) -> bool:
        """Take user name and password for this key message; False: the session or this key ends instead."""
        login = self._core.settings.login
        if login is None:
            return True
        try:
            self._sent = login.credentials()
        except LoginUnavailable as error:
            if self.terms is not None:
                # The older key carries on meanwhile.
                raise RemoteProtocolError("tls_failed", error.message) from None
            self._core.leave(
                SessionInput.FAILED, "auth_failed", error.message, now, retry_after=UNREADABLE_RETRY_SECONDS
            )
            return False
        return True

    def _peer_info(self) -> PeerInfo:
        settings = self._core.settings
        return client_peer_info(
            version=settings.version,
            platform=settings.platform,
            ciphers=settings.ciphers,
            flags=_ALWAYS | (_WITH_EXPORTER if settings.use_exporter else ProtocolFlags.NONE),
            max_mtu=max(TUN_MTU_ACCEPTED, settings.tun_mtu),
            answers_challenges=settings.login is not None and settings.login.answers_challenges,
            abilities=() if settings.framing == "none" else STUBS,
        )

    def receive_key_message(self, key: KeyState, plaintext: bytes, now: float) -> None:
        key.server_message = parse_server_key_message(plaintext)
        if self.terms is None:
            self._core.timers.set(SessionTimer.PUSH_REQUEST, now + FIRST_PUSH_REQUEST)
            self._core.timers.set(SessionTimer.PUSH_REPLY, now + self._core.settings.hand_window)

    def handle_active(self, key: KeyState, now: float) -> None:
        if self.terms is not None:
            self._keys.derive(key, self.terms, now)

    # --- control messages -------------------------------------------------------------------------

    def handle_message(self, message: messages.Message, key: KeyState, now: float) -> None:
        core = self._core
        match message:
            case messages.PushReply(text):
                if self.terms is None:
                    self._take_push(text, key, now)
                else:
                    self._take_later_push(text)
            case messages.AuthFailed():
                self._handle_refusal(message, now)
            case messages.AuthPending(timeout):
                if self.terms is None:
                    self._wait_longer(timeout, now)
            case messages.Restart(flags, text):
                core.leave(
                    SessionInput.PEER_LEFT,
                    "exit_notify",
                    f"the server restarts: {text}" if text else "The server shut down or is restarting.",
                    now,
                    advance="remote" if "N" in flags else None,
                    is_handed_over=messages.HANDED_OVER in flags,
                )
            case messages.Halt(_, text):
                core.leave(
                    SessionInput.PEER_LEFT,
                    "kicked",
                    f"the server disconnected us: {text or 'no reason given'}",
                    now,
                    retry_after=HALT_RETRY_SECONDS,
                    is_final=True,
                )
            case messages.Exit():
                core.leave(SessionInput.PEER_LEFT, "exit_notify", "the server left", now)
            case messages.Info(text, pre=True) if text.startswith(CR_TEXT):
                self._answer_challenge(now)
            case _:
                pass

    def _handle_refusal(self, message: messages.AuthFailed, now: float) -> None:
        """AUTH_FAILED. A token that ran out and a challenge are answered by another attempt at once."""
        words, seconds = message.reason or NO_REASON, 0.0
        if message.kind is messages.AuthFailedKind.CHALLENGE:
            words, seconds = self._meet_challenge(message.reason)
        elif message.kind is not messages.AuthFailedKind.TEMPORARY:
            words, seconds = self._meet_refusal(message)
        self._core.leave(
            SessionInput.FAILED,
            "auth_expired" if self._core.state is SessionState.ESTABLISHED else "auth_failed",
            f"the server refuses us: {words} ({message.kind.value})",
            now,
            retry_after=max(seconds, float(message.backoff or 0)),
            advance=message.advance,
            is_final=seconds > 0.0,
        )

    def _meet_refusal(self, message: messages.AuthFailed) -> tuple[str, float]:
        """Words, and how long to wait."""
        login = self._core.settings.login
        if login is None:
            return message.reason or NO_REASON, 0.0
        had_token = login.forget_token()
        if had_token and (message.kind is messages.AuthFailedKind.SESSION_EXPIRED or self._used_token):
            return f"{message.reason or 'the token is not accepted'}; the password is next", 0.0
        return f"{message.reason}; {WRONG_LOGIN}" if message.reason else WRONG_LOGIN, login.note_refused()

    @property
    def _used_token(self) -> bool:
        return self._sent is not None and self._sent.is_token

    def _meet_challenge(self, reason: str) -> tuple[str, float]:
        """Words, and how long to wait."""
        challenge, login = DynamicChallenge.parse(reason), self._core.settings.login
        if challenge is None:
            return "its challenge is malformed", CHALLENGE_RETRY_SECONDS
        if login is not None and login.note_challenge(challenge):
            return f"it asks {challenge.text!r}, which the next attempt answers", 0.0
        cure = "set `login.totp_secret`, or ask its owner for an account without"
        return f"it asks {challenge.text!r}, a one-time code: {cure}", CHALLENGE_RETRY_SECONDS

    def _answer_challenge(self, now: float) -> None:
        login = self._core.settings.login
        if login is None or not login.answers_challenges or self.terms is not None:
            return
        try:
            code = login.code()
        except LoginUnavailable as error:
            self._core.leave(SessionInput.FAILED, "auth_failed", error.message, now)
            return
        self._keys.say(messages.ChallengeResponse(encode_base64(code)), now)

    def handle_timeout(self, now: float) -> None:
        timers = self._core.timers
        if timers.take(SessionTimer.PUSH_REPLY, now):
            self._core.leave(
                SessionInput.FAILED, "push_failed", "the server sends no options (PUSH_REPLY)", now
            )
        elif timers.is_due(SessionTimer.PUSH_REQUEST, now):
            timers.set(SessionTimer.PUSH_REQUEST, now + PUSH_REQUEST_INTERVAL)
            self._keys.say(messages.PushRequest(), now)

    def dismissal(self, text: str) -> messages.Message | None:
        return None

    def _wait_longer(self, timeout: float | None, now: float) -> None:
        """The server waits for something, such as a second factor, for `timeout` seconds."""
        window = self._core.settings.hand_window
        limit = max(self._core.settings.reneg_seconds / 2, window)
        self._core.timers.set(
            SessionTimer.PUSH_REPLY, now + min(timeout if timeout is not None else window, limit)
        )

    # --- terms ------------------------------------------------------------------------------------

    def _take_push(self, text: str, key: KeyState, now: float) -> None:
        try:
            options = self._pushes.add(text)
            pushed = parse_pushed_options(options) if options is not None else None
        except RemoteProtocolError as error:
            raise RemoteProtocolError("push_failed", error.message) from error
        if pushed is not None:
            self._apply(pushed, key, now)

    def _take_later_push(self, text: str) -> None:
        """After a renegotiation the server may give another token. Nothing else changes by then."""
        try:
            options = self._pushes.add(text)
        except RemoteProtocolError:
            return
        if options is not None:
            self._take_token(parse_pushed_options(options))

    def _take_token(self, pushed: PushedOptions) -> None:
        login = self._core.settings.login
        if login is None or pushed.auth_token is None:
            return
        name = decode_base64(pushed.auth_token_user) if pushed.auth_token_user else None
        login.note_token(pushed.auth_token, name)

    def _apply(self, pushed: PushedOptions, key: KeyState, now: float) -> None:
        settings = self._core.settings
        assert key.server_message is not None
        remote_options = key.server_message.options
        framing = framing_of_server(settings.framing, pushed.compression, remote_options)
        foreign = foreign_framing(remote_options, fragments=settings.fragment > 0)
        if framing is None:
            foreign = foreign_compression(pushed.compression, is_unknown=settings.framing == "auto")
            framing = "none"
        if foreign is not None:
            if FLAG_CC_EXIT in pushed.protocol_flags:
                # Without it the server would send us frames until its ping-restart.
                self._keys.say(messages.Exit(), now)
            self._core.leave(SessionInput.FAILED, "framing_mismatch", foreign.at("server"), now)
            return
        if pushed.uses_exporter and not settings.use_exporter:
            raise RemoteProtocolError("push_failed", "the server wants the exporter, which we did not offer")
        cipher = accept_pushed_cipher(
            settings.ciphers, pushed.cipher, remote_options, settings.fallback_cipher
        )
        is_epoch = FLAG_AEAD_EPOCH in pushed.protocol_flags
        if is_epoch and (cipher.is_cbc or pushed.peer_id is None):
            raise RemoteProtocolError("push_failed", f"the server wants epochs with {cipher}, or no peer id")
        expected = build_options_string(link_options(settings).mirrored())
        self.terms = Negotiated(
            cipher=cipher,
            transmit_peer_id=pushed.peer_id,
            ping=int(pushed.ping or 0),
            ping_restart=int(pushed.ping_restart or 0),
            tun_mtu=pushed.tun_mtu or settings.tun_mtu,
            key_derivation="exporter" if pushed.uses_exporter else "prf",
            is_epoch=is_epoch,
            exit_by_control=FLAG_CC_EXIT in pushed.protocol_flags,
            dynamic_wrap=FLAG_DYN_TLS_CRYPT in pushed.protocol_flags,
            tls=key.engine.summary(),
            framing=framing,
            fragment=settings.fragment,
            ignored=pushed.ignored,
            warnings=tuple(compare_options(expected, remote_options)),
        )
        self._core.timers.stop(SessionTimer.PUSH_REQUEST)
        self._core.timers.stop(SessionTimer.PUSH_REPLY)
        self._take_token(pushed)
        if settings.login is not None:
            settings.login.note_accepted()
        begin_traffic(self._core, self._keys, self._wire, key, self.terms, now)
