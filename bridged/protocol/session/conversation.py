"""What both roles share of the talk inside TLS: key messages, control messages, terms.

Source: docs/protocol/control.md#5 to #7.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from bridged.protocol.keys.key_derivation import EXPORTER_DYNAMIC_TLS_CRYPT
from bridged.protocol.keys.static_key import STATIC_KEY_LENGTH
from bridged.protocol.packets.messages import Message
from bridged.protocol.packets.options_string import LinkOptions
from bridged.protocol.packets.wrap import WrapChannel, dynamic_tls_crypt
from bridged.protocol.role import Role
from bridged.protocol.session.key_state import KeyState
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.terms import Negotiated

if TYPE_CHECKING:
    from bridged.protocol.session.session import Session

TUN_MTU_ACCEPTED: Final = 1600
"""Octets: the least largest tun-mtu that a client announces as IV_MTU (control.md#5-2)."""


class Conversation(Protocol):
    """One role's part. `terms` is None until both ends agreed; `farewell` is what it says when it leaves."""

    terms: Negotiated | None
    farewell: str | None

    def open(self, key: KeyState, now: float) -> None:
        """TLS is up: speak first, if that is this role's part. Called again and again."""

    def receive_key_message(self, key: KeyState, plaintext: bytes, now: float) -> None:
        """The peer's first plaintext on this key."""

    def handle_active(self, key: KeyState, now: float) -> None:
        """Both key messages are known and all of ours is acknowledged."""

    def handle_message(self, message: Message, key: KeyState, now: float) -> None:
        """A control message of the peer."""

    def handle_timeout(self, now: float) -> None: ...

    def deadlines(self) -> list[tuple[float, str]]: ...

    def admit(self, peer_id: int, now: float) -> None:
        """Server: the authenticated peer may come in, with this DATA_V2 peer id."""

    def refuse(self, reason: str, text: str, now: float) -> None:
        """Server: it may not; `text` is told to the peer, `reason` is a handshake outcome."""


def link_options(settings: SessionSettings) -> LinkOptions:
    """Our options string's contents."""
    return LinkOptions(
        role=settings.role,
        tun_mtu=settings.tun_mtu,
        digest=settings.digest,
        tls_auth=settings.wrap_name == "tls-auth",
        key_direction=settings.wrap_direction,
        wanted_cipher=settings.ciphers[0] if settings.role is Role.CLIENT else None,
    )


def start_dynamic_wrap(session: Session, key: KeyState) -> None:
    """Make the wrap of all later key ids from the session with key id 0 (control.md#2-6)."""
    exported = key.engine.export(EXPORTER_DYNAMIC_TLS_CRYPT, STATIC_KEY_LENGTH)
    keys = dynamic_tls_crypt(session.settings.wrap_key, exported, session.settings.role)
    session.wire.use_dynamic_wrap(WrapChannel(keys, session.wire.wrap_time))
