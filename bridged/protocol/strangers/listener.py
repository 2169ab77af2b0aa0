"""The server before a session exists: answers hard resets and keeps no state.

Source: docs/protocol/control.md#2-5, #4-2 and #8-4.
Pure: callers pass `now` (monotonic seconds) and the Unix time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.addresses import Endpoint
from bridged.errors import RemoteProtocolError
from bridged.protocol.packets.early_negotiation import RESEND_KEY_REQUEST
from bridged.protocol.packets.packet import (
    ControlBody,
    ControlHeader,
    Opcode,
    parse_body,
    parse_header,
    serialize_body,
)
from bridged.protocol.packets.wrap import OpenedControl, WrapKeys
from bridged.protocol.session.reliable import RECEIVE_WINDOW
from bridged.protocol.session.wire import MAX_CONTROL_DATAGRAM
from bridged.protocol.strangers.cookie import CookieJar
from bridged.protocol.strangers.key_memory import KeyMemory
from bridged.protocol.strangers.reset_limit import ResetLimit
from bridged.units import KeyId

ANSWER_PACKET_ID: Final = 1
"""Wrap packet id of every stateless answer; the session continues with the next id."""

_OPENERS: Final = frozenset({Opcode.CONTROL_V1, Opcode.ACK_V1, Opcode.CONTROL_WKC_V1})
_RESETS: Final = frozenset({Opcode.HARD_RESET_CLIENT_V2, Opcode.HARD_RESET_CLIENT_V3})
_EARLY: Final = 0x0F
"""First byte of a packet id whose sender can repeat its wrapped key."""
_FIRST_IDS: Final = frozenset({0, 1})
"""What a client can acknowledge before it has a session. Its own message ids may be higher: a large
ClientHello takes two packets, and the second may arrive first."""


@dataclass(frozen=True, slots=True)
class ResetAnswer:
    """Send this to the source of the hard reset."""

    datagram: bytes


@dataclass(frozen=True, slots=True)
class KeyOnlyOnce:
    """A hard reset of a client that sends its wrapped key only now: a listener with a memory must answer."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """The cookie came back: a session with these ids can be made, and `opened` is among its first packets.

    `message_id`: of a packet that carries TLS; None: it only acknowledges our answer.
    """

    local_session_id: bytes
    remote_session_id: bytes
    opened: OpenedControl
    message_id: int | None


class Listener:
    """Answers for one listening socket; keeps no state. `limit` decides which hard resets get an answer.

    `memory`: holds keys of clients of OpenVPN 2.5 with tls-crypt-v2 until their cookie returns. Without one,
    their resets are not answered here (`KeyOnlyOnce`).

    Raises:
        RemoteProtocolError: from `receive`, with the drop reason: wrap errors, `cookie_mismatch`,
            `handshake_rate`, `bad_opcode`.
    """

    def __init__(
        self,
        keys: WrapKeys,
        jar: CookieJar,
        limit: ResetLimit | None = None,
        memory: KeyMemory | None = None,
    ) -> None:
        self._keys = keys
        self._memory = memory
        self._jar = jar
        self._limit = limit or ResetLimit()

    def receive(
        self, datagram: bytes, source: Endpoint, now: float, unix_now: float, proven: bytes | None = None
    ) -> ResetAnswer | NewSession | KeyOnlyOnce:
        """Take a control packet that belongs to no session.

        `proven`: the cookie of an earlier packet with this source and session id. OpenVPN before 2.6 returns
        the cookie only once.
        """
        if len(datagram) > MAX_CONTROL_DATAGRAM:
            raise RemoteProtocolError("bad_length", f"a control packet of {len(datagram)} bytes")
        opened = self._unwrap(datagram, source, now)
        header = opened.header
        body = parse_body(header.opcode, opened.body)
        if header.key_id != 0:
            raise RemoteProtocolError("unknown_key_id", "a new session begins with key id 0")
        if header.opcode in _RESETS:
            return self._answer(opened, body, source, now, unix_now)
        if header.opcode in _OPENERS:
            return self._open(opened, body, source, now, proven)
        raise RemoteProtocolError("bad_opcode", f"{header.opcode.name} opens no session here")

    def _unwrap(self, datagram: bytes, source: Endpoint, now: float) -> OpenedControl:
        if self._keys.name != "tls-crypt-v2":
            return self._keys.open(datagram)
        header = parse_header(datagram)
        keys = self._memory.find(source, header.session_id, now) if self._memory is not None else None
        if keys is not None and header.opcode in _OPENERS:
            return keys.open(datagram).under(keys)
        if header.opcode is Opcode.HARD_RESET_CLIENT_V3 and not self._limit.allows_key(
            header.session_id, now
        ):
            raise RemoteProtocolError("handshake_rate", "too many hard resets of one session")
        try:
            return self._keys.open(datagram)
        except RemoteProtocolError as error:
            if error.code == "wrap_mismatch" and header.opcode in (Opcode.CONTROL_V1, Opcode.ACK_V1):
                # Its key came in an earlier packet, or never.
                raise RemoteProtocolError("cookie_mismatch", str(error)) from error
            raise

    def _answer(
        self, opened: OpenedControl, body: ControlBody, source: Endpoint, now: float, unix_now: float
    ) -> ResetAnswer | KeyOnlyOnce:
        header, keys = opened.header, opened.keys or self._keys
        if body.message_id != 0:
            raise RemoteProtocolError("bad_length", "a hard reset has message id 0")
        brings_key = header.opcode is Opcode.HARD_RESET_CLIENT_V3
        if brings_key and opened.keys is None:
            raise RemoteProtocolError("bad_opcode", "tls-crypt-v2 is not offered here")
        is_once = brings_key and opened.packet_id >> 24 != _EARLY
        allows = self._limit.allows_once if is_once else self._limit.allows
        if not allows(source, header.session_id, now):
            raise RemoteProtocolError("handshake_rate", "too many hard resets")
        payload = RESEND_KEY_REQUEST if brings_key else b""
        if is_once:
            if self._memory is None:
                return KeyOnlyOnce()
            self._memory.note(source, header.session_id, keys, now)
            payload = b""
        cookie = self._jar.make(source, header.session_id, now)
        answer = serialize_body(ControlBody((0,), header.session_id, 0, payload))
        own = ControlHeader(Opcode.HARD_RESET_SERVER_V2, KeyId(0), cookie)
        return ResetAnswer(keys.seal(own, ANSWER_PACKET_ID, int(unix_now) & 0xFFFFFFFF, answer))

    def _open(
        self, opened: OpenedControl, body: ControlBody, source: Endpoint, now: float, proven: bytes | None
    ) -> NewSession:
        cookie = body.remote_session_id or proven
        remote = opened.header.session_id
        if cookie is None or not self._jar.check(cookie, source, remote, now):
            raise RemoteProtocolError("cookie_mismatch", "no such session, and not a cookie of ours")
        if not _FIRST_IDS.issuperset(body.acks) or (body.message_id or 0) >= RECEIVE_WINDOW:
            raise RemoteProtocolError("cookie_mismatch", "not the first packet of a session")
        if self._memory is not None and opened.keys is not None:
            # Its next packet may overtake the session that this one opens.
            self._memory.note(source, remote, opened.keys, now)
        return NewSession(cookie, remote, opened, body.message_id)
