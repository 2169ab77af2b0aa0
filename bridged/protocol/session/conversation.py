"""What client and server have in common in what they say inside TLS: key messages, control messages, terms.

Source: docs/protocol/control.md#5 to #7.
Pure: callers pass `now` (monotonic seconds).
"""

from __future__ import annotations

from typing import Final, Protocol

from bridged.protocol.keys.key_derivation import EXPORTER_DYNAMIC_TLS_CRYPT
from bridged.protocol.keys.static_key import STATIC_KEY_LENGTH
from bridged.protocol.packets.framing import Framing
from bridged.protocol.packets.messages import Message
from bridged.protocol.packets.options_string import LinkOptions
from bridged.protocol.packets.wrap import WrapChannel, dynamic_tls_crypt
from bridged.protocol.role import Role
from bridged.protocol.session.core import SessionCore
from bridged.protocol.session.events import Established
from bridged.protocol.session.key_slots import KeySlots
from bridged.protocol.session.key_state import KeyState
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.terms import Negotiated
from bridged.protocol.session.wire import SessionWire

TUN_MTU_ACCEPTED: Final = 1600
"""Bytes. A client announces to accept a tun-mtu of at least this (docs/protocol/control.md#5-2)."""


class Conversation(Protocol):
    """One role's part of a session: it says and hears what is inside TLS.

    `terms` is None until both ends agreed. `farewell` is the message with which this role leaves, `handover`
    the one where a successor continues.
    """

    terms: Negotiated | None
    farewell: Message
    handover: Message

    def open(self, key: KeyState, now: float) -> None:
        """TLS is up: speak first, if that is this role's part. May be called again."""

    def receive_key_message(self, key: KeyState, plaintext: bytes, now: float) -> None:
        """Take the peer's first plaintext on this key."""

    def handle_active(self, key: KeyState, now: float) -> None:
        """Both key messages are known, and the peer acknowledged all packets of ours."""

    def handle_message(self, message: Message, key: KeyState, now: float) -> None:
        """Take a control message of the peer."""

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""

    def dismissal(self, text: str) -> Message | None:
        """The message that ends a replaced peer; None for a role whose peers are never replaced."""


def link_options(settings: SessionSettings, framing: Framing | None = None) -> LinkOptions:
    """Our options string's contents. `framing`: what is agreed (None: not yet)."""
    if framing is None:
        framing = "none" if settings.framing == "auto" else settings.framing
    legacy = settings.fallback_cipher or settings.ciphers[0] if settings.is_point_to_point else None
    return LinkOptions(
        role=settings.role,
        tun_mtu=settings.tun_mtu,
        digest=settings.digest,
        fragment=settings.fragment > 0,
        compression=framing != "none",
        compression_octet=framing in ("comp-lzo", "stub"),
        tls_auth=settings.wrap_name == "tls-auth",
        key_direction=settings.wrap_direction,
        tcp=settings.is_stream,
        static_key=settings.wrap_name == "static-key",
        legacy_cipher=legacy,
        wanted_cipher=settings.ciphers[0] if settings.role is Role.CLIENT else None,
    )


def begin_traffic(
    core: SessionCore, keys: KeySlots, wire: SessionWire, key: KeyState, terms: Negotiated, now: float
) -> None:
    """Both ends agreed on `terms`: make the first data key, and let frames flow."""
    if terms.dynamic_wrap:
        _start_dynamic_wrap(core, wire, key)
    keys.derive(key, terms, now)
    core.establish()
    core.emit(Established(terms, core.elapsed(now)))


def _start_dynamic_wrap(core: SessionCore, wire: SessionWire, key: KeyState) -> None:
    """Make the wrap of all later key ids from the TLS session of key id 0 (docs/protocol/control.md#2-6)."""
    exported = key.engine.export(EXPORTER_DYNAMIC_TLS_CRYPT, STATIC_KEY_LENGTH)
    keys = dynamic_tls_crypt(core.settings.wrap_key, exported, core.settings.role)
    wire.use_dynamic_wrap(WrapChannel(keys, wire.wrap_time))
