"""tls-auth: an HMAC over every control packet.

Source: docs/protocol/control.md#2-3.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from bridged.errors import ConfigurationError, RemoteProtocolError
from bridged.protocol.keys.digest import DIGESTS, parse_digest
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.packet import HEADER_LENGTH, ControlHeader, parse_header, serialize_header
from bridged.protocol.packets.wrap.keys import PACKET_ID_LENGTH, OpenedControl, WrapSecrets

_IDS: Final = struct.Struct(">II")


class TlsAuthKeys:
    """HMAC keys of both directions.

    `direction` does not depend on the role: None at both ends, or 0 at one (usually the server) and 1 at the
    other. `digest` is the configured `auth`, which is not negotiated.

    Raises:
        ConfigurationError: direction other than None, 0, 1; unknown digest.
    """

    name = "tls-auth"
    has_packet_ids = True
    wrapped_key = b""
    first_packet_id = 1

    def __init__(self, key: StaticKey, direction: int | None, digest: str = "SHA1") -> None:
        if direction not in (None, 0, 1):
            raise ConfigurationError(
                f"key direction {direction!r}: write 0, 1 or leave it out", code="key_direction"
            )
        self.digest = parse_digest(digest)
        self.direction = direction
        self._hash, self._length = DIGESTS[self.digest]
        send = key.hmac1 if direction == 1 else key.hmac0
        receive = key.hmac1 if direction == 0 else key.hmac0
        self._send = send[: self._length]
        self._receive = receive[: self._length]

    @property
    def overhead(self) -> int:
        return self._length + PACKET_ID_LENGTH

    @property
    def secrets(self) -> WrapSecrets:
        return WrapSecrets(self.digest, self._send, self._receive)

    def seal(self, header: ControlHeader, packet_id: int, packet_time: int, body: bytes) -> bytes:
        front = serialize_header(header)
        ids = _IDS.pack(packet_id, packet_time)
        # The packet id comes first in what is signed, the HMAC in what is sent.
        return front + hmac.digest(self._send, ids + front + body, self._hash) + ids + body

    def open(self, datagram: bytes) -> OpenedControl:
        header = parse_header(datagram)
        start = HEADER_LENGTH + self._length
        if len(datagram) < start + PACKET_ID_LENGTH:
            raise RemoteProtocolError("short_packet", f"{len(datagram)} bytes hold no tls-auth packet")
        ids = datagram[start : start + PACKET_ID_LENGTH]
        body = bytes(datagram[start + PACKET_ID_LENGTH :])
        expected = hmac.digest(self._receive, ids + datagram[:HEADER_LENGTH] + body, self._hash)
        if not hmac.compare_digest(expected, datagram[HEADER_LENGTH:start]):
            raise RemoteProtocolError("wrap_mismatch", "the tls-auth HMAC does not match")
        packet_id, packet_time = _IDS.unpack(ids)
        return OpenedControl(header, packet_id, packet_time, body)

    def __repr__(self) -> str:
        return f"TlsAuthKeys(direction={self.direction}, digest={self.digest!r})"
