"""tls-crypt, also with the key that both ends make for renegotiations (dynamic tls-crypt).

Source: docs/protocol/control.md#2-4 and #2-6.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from bridged.errors import LocalProtocolError, RemoteProtocolError
from bridged.protocol.keys.counter_mode import CounterMode
from bridged.protocol.keys.static_key import STATIC_KEY_LENGTH, StaticKey
from bridged.protocol.packets.packet import HEADER_LENGTH, ControlHeader, parse_header, serialize_header
from bridged.protocol.packets.wrap.keys import PACKET_ID_LENGTH, OpenedControl, WrapSecrets
from bridged.protocol.role import Role

_IDS: Final = struct.Struct(">II")
_TAG: Final = 32
_CLEAR: Final = HEADER_LENGTH + PACKET_ID_LENGTH
_KEY: Final = 32
_BLOCK: Final = 16


class TlsCryptKeys:
    """Encryption and HMAC keys of both directions, sliced by `role`, the TLS role of this end."""

    name = "tls-crypt"
    has_packet_ids = True
    wrapped_key = b""
    first_packet_id = 1
    overhead = PACKET_ID_LENGTH + _TAG

    def __init__(self, key: StaticKey, role: Role) -> None:
        lower = (key.cipher0[:_KEY], key.hmac0[:_KEY])
        upper = (key.cipher1[:_KEY], key.hmac1[:_KEY])
        # The server sends with the lower half. For data keys it is the other way round (data.md#1-2).
        send, receive = (lower, upper) if role is Role.SERVER else (upper, lower)
        self.role = role
        self._send_encrypt, self._send_authenticate = send
        self._receive_encrypt, self._receive_authenticate = receive
        self._send_cipher = CounterMode(self._send_encrypt)
        self._receive_cipher = CounterMode(self._receive_encrypt)

    @property
    def secrets(self) -> WrapSecrets:
        return WrapSecrets(
            "SHA256",
            self._send_authenticate,
            self._receive_authenticate,
            self._send_encrypt,
            self._receive_encrypt,
        )

    def seal(self, header: ControlHeader, packet_id: int, packet_time: int, body: bytes) -> bytes:
        front = serialize_header(header) + _IDS.pack(packet_id, packet_time)
        tag = hmac.digest(self._send_authenticate, front + body, "sha256")
        return front + tag + self._send_cipher.apply(tag[:_BLOCK], body)

    def open(self, datagram: bytes) -> OpenedControl:
        header = parse_header(datagram)
        if len(datagram) < _CLEAR + _TAG:
            raise RemoteProtocolError("short_packet", f"{len(datagram)} bytes hold no tls-crypt packet")
        tag = bytes(datagram[_CLEAR : _CLEAR + _TAG])
        body = self._receive_cipher.apply(tag[:_BLOCK], bytes(datagram[_CLEAR + _TAG :]))
        expected = hmac.digest(self._receive_authenticate, datagram[:_CLEAR] + body, "sha256")
        if not hmac.compare_digest(expected, tag):
            raise RemoteProtocolError("wrap_mismatch", "the tls-crypt tag does not match")
        packet_id, packet_time = _IDS.unpack_from(datagram, HEADER_LENGTH)
        return OpenedControl(header, packet_id, packet_time, body)

    def __repr__(self) -> str:
        return f"TlsCryptKeys(role={self.role})"


def dynamic_tls_crypt(base: StaticKey | None, exported: bytes, role: Role) -> TlsCryptKeys:
    """The wrap of every control packet with key id 1..7, once both ends agreed on it.

    `base` is the key of tls-auth or tls-crypt in use, None without a wrap; `exported` the 256
    bytes of the TLS exporter `EXPORTER_DYNAMIC_TLS_CRYPT` of the session with key id 0. Made once
    per session; its replay counter starts at 1.
    """
    return TlsCryptKeys(dynamic_key(base, exported), role)


def dynamic_key(base: StaticKey | None, exported: bytes) -> StaticKey:
    """`exported` XOR `base`, byte by byte."""
    if len(exported) != STATIC_KEY_LENGTH:
        raise LocalProtocolError(f"the exporter must give {STATIC_KEY_LENGTH} bytes, not {len(exported)}")
    if base is None:
        return StaticKey(bytes(exported))
    return StaticKey(bytes(a ^ b for a, b in zip(exported, base.octets, strict=True)))
