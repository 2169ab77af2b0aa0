"""Both parts inside TLS of a point-to-point link: nothing is pushed, both ends say what they can do.

Source: docs/protocol/control.md#5 and #7 (P2P).
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.key_derivation import EXPORTER_PEER_ID
from bridged.protocol.keys.key_exchange import (
    RANDOM_LENGTH,
    ServerKeyMessage,
    parse_server_key_message,
    serialize_server_key_message,
)
from bridged.protocol.packets import messages
from bridged.protocol.packets.framing import Framing
from bridged.protocol.packets.framing_choice import is_asked_for
from bridged.protocol.packets.negotiation import (
    PeerInfo,
    ProtocolFlags,
    choose_cipher_point_to_point,
    point_to_point_peer_info,
)
from bridged.protocol.packets.options_string import build_options_string, compare_options, foreign_framing
from bridged.protocol.session.conversation import begin_traffic, link_options
from bridged.protocol.session.conversation_client import ClientConversation
from bridged.protocol.session.conversation_server import ServerConversation
from bridged.protocol.session.core import SessionCore
from bridged.protocol.session.key_state import KeyState
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.states import SessionInput
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.timers import SessionTimer
from bridged.units import WirePeerId

_WITH_EXPORTER: Final = ProtocolFlags.TLS_KEY_EXPORT | ProtocolFlags.CC_EXIT | ProtocolFlags.DYNAMIC_TLS_CRYPT
_PEER_ID_OCTETS: Final = 3
_PEER_ID_WITHOUT_EXPORTER: Final = WirePeerId(0x76706E)


def own_peer_info(settings: SessionSettings) -> PeerInfo:
    """What either end of a point-to-point link announces."""
    flags = ProtocolFlags.DATA_V2 | ProtocolFlags.P2P_NEGOTIATION
    if settings.use_exporter:
        flags |= _WITH_EXPORTER
    return point_to_point_peer_info(settings.ciphers, flags)


def framing_of(settings: SessionSettings, remote_options: str) -> Framing:
    """Nobody pushes one: what both ends are set to, or for `auto` the oldest one if the peer has any."""
    if settings.framing != "auto":
        return settings.framing
    return "comp-lzo" if is_asked_for(remote_options) else "none"


def agree(
    core: SessionCore, key: KeyState, info: PeerInfo, remote_options: str, cipher: Cipher
) -> Negotiated:
    """The terms that follow from what both ends said. An end that does not negotiate gets the oldest ones."""
    settings = core.settings
    can = info.protocol if info.protocol & ProtocolFlags.P2P_NEGOTIATION else ProtocolFlags.NONE
    exports = settings.use_exporter and bool(can & ProtocolFlags.TLS_KEY_EXPORT)
    peer_id = None
    if can & ProtocolFlags.DATA_V2:
        peer_id = _PEER_ID_WITHOUT_EXPORTER
        if exports:
            peer_id = WirePeerId(int.from_bytes(key.engine.export(EXPORTER_PEER_ID, _PEER_ID_OCTETS), "big"))
    framing = framing_of(settings, remote_options)
    expected = build_options_string(link_options(settings, framing).mirrored())
    return Negotiated(
        cipher=cipher,
        transmit_peer_id=peer_id,
        ping=settings.ping,
        ping_restart=settings.ping_restart,
        tun_mtu=settings.tun_mtu,
        key_derivation="exporter" if exports else "prf",
        is_epoch=False,
        exit_by_control=exports and bool(can & ProtocolFlags.CC_EXIT),
        dynamic_wrap=exports and bool(can & ProtocolFlags.DYNAMIC_TLS_CRYPT),
        tls=key.engine.summary(),
        peer_version=info.version,
        peer_platform=info.platform,
        framing=framing,
        fragment=settings.fragment,
        is_point_to_point=True,
        warnings=tuple(compare_options(expected, remote_options)),
    )


def _choose(
    settings: SessionSettings, info: PeerInfo, options: str, first: Sequence[Cipher] | None
) -> Cipher:
    return choose_cipher_point_to_point(settings.ciphers, info, options, settings.fallback_cipher, first)


class PointToPointClient(ClientConversation):
    """The end that is TLS client. It begins its traffic as soon as its packets are acknowledged."""

    handover: messages.Message = messages.Exit()

    def _peer_info(self) -> PeerInfo:
        return own_peer_info(self._core.settings)

    def receive_key_message(self, key: KeyState, plaintext: bytes, now: float) -> None:
        key.server_message = parse_server_key_message(plaintext)

    def handle_active(self, key: KeyState, now: float) -> None:
        if self.terms is not None:
            self._keys.derive(key, self.terms, now)
            return
        assert key.server_message is not None
        options = key.server_message.options
        foreign = foreign_framing(options, fragments=self._core.settings.fragment > 0)
        if foreign is not None:
            self._core.leave(SessionInput.FAILED, "framing_mismatch", foreign.at("server"), now)
            return
        info = PeerInfo.parse(key.server_message.peer_info)
        # The TLS server's order counts.
        theirs = [cipher for name in info.ciphers or () if (cipher := Cipher.find(name)) is not None]
        cipher = _choose(self._core.settings, info, options, theirs)
        self.terms = agree(self._core, key, info, options, cipher)
        begin_traffic(self._core, self._keys, self._wire, key, self.terms, now)

    def handle_message(self, message: messages.Message, key: KeyState, now: float) -> None:
        if isinstance(message, messages.Exit):
            super().handle_message(message, key, now)

    def handle_timeout(self, now: float) -> None:
        """Nothing is waited for."""


class PointToPointServer(ServerConversation):
    """The end that is TLS server. It admits or refuses its peer as a server does."""

    farewell: messages.Message = messages.Exit()
    handover: messages.Message = messages.Exit()

    def _choose_cipher(self, options: str) -> Cipher:
        self._framing = framing_of(self._core.settings, options)
        return _choose(self._core.settings, self._info, options, None)

    def _answer(self, key: KeyState, now: float) -> None:
        random, settings = self._core.random_bytes, self._core.settings
        key.server_message = ServerKeyMessage(
            random1=random(RANDOM_LENGTH),
            random2=random(RANDOM_LENGTH),
            options=build_options_string(link_options(settings, self._framing)),
            peer_info=own_peer_info(settings).serialize(),
        )
        key.write(serialize_server_key_message(key.server_message), now)

    def dismissal(self, text: str) -> messages.Message | None:
        return messages.Exit()

    def _may_push(self) -> bool:
        return True

    def _agree(self, key: KeyState, now: float) -> None:
        assert self._cipher is not None
        assert key.client_message is not None
        self._core.timers.stop(SessionTimer.PUSH_REQUEST)
        self.terms = agree(self._core, key, self._info, key.client_message.options, self._cipher)
        begin_traffic(self._core, self._keys, self._wire, key, self.terms, now)

    def _say_refused(self, reason: str, text: str, now: float) -> None:
        """The other end knows no such message."""

    def handle_message(self, message: messages.Message, key: KeyState, now: float) -> None:
        if isinstance(message, messages.Exit):
            super().handle_message(message, key, now)

    def handle_timeout(self, now: float) -> None:
        """The peer asks for nothing."""
