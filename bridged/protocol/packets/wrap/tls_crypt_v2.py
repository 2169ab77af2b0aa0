"""tls-crypt-v2: each client has a wrap key of its own, which it brings along, sealed with the server's key.

Source: docs/protocol/control.md#2-5.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

from typing import Final

from bridged.errors import RemoteProtocolError
from bridged.protocol.keys.client_wrap_key import LENGTH_FIELD, ServerWrapKey, UnwrappedKey
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.packet import ControlHeader, Opcode, parse_header
from bridged.protocol.packets.wrap.keys import OpenedControl, WrapKeys, WrapSecrets
from bridged.protocol.packets.wrap.tls_crypt import TlsCryptKeys
from bridged.protocol.role import Role

CARRIERS: Final = frozenset({Opcode.HARD_RESET_CLIENT_V3, Opcode.CONTROL_WKC_V1})
"""Packets behind which the wrapped client key is."""
EARLY_PACKET_ID: Final = 0x0F000001
"""The first packet id of a client that can send its key a second time."""


class TlsCryptV2Keys:
    """The wrap of one session: tls-crypt with the client's own key.

    `wrapped_key`: what a client sends behind its reset; a server has none, and cuts the client's off.
    `client_key`: at a server, what came with the client's key.
    """

    name = "tls-crypt-v2"
    has_packet_ids = True
    overhead = TlsCryptKeys.overhead

    def __init__(
        self, key: StaticKey, role: Role, wrapped_key: bytes = b"", client_key: UnwrappedKey | None = None
    ) -> None:
        self.key = key
        self.wrapped_key = wrapped_key
        self.client_key = client_key
        self._crypt = TlsCryptKeys(key, role)
        self.first_packet_id = EARLY_PACKET_ID if role is Role.CLIENT else 1

    @property
    def secrets(self) -> WrapSecrets:
        return self._crypt.secrets

    def seal(self, header: ControlHeader, packet_id: int, packet_time: int, body: bytes) -> bytes:
        packet = self._crypt.seal(header, packet_id, packet_time, body)
        return packet + self.wrapped_key if header.opcode in CARRIERS else packet

    def open(self, datagram: bytes) -> OpenedControl:
        if parse_header(datagram).opcode in CARRIERS:
            datagram, _ = split_wrapped_key(datagram)
        return self._crypt.open(datagram)

    def open_without_key(self, packet: bytes) -> OpenedControl:
        """Open a packet from which the wrapped key is cut off already."""
        return self._crypt.open(packet)

    def __repr__(self) -> str:
        return f"TlsCryptV2Keys(role={self._crypt.role})"


class TlsCryptV2Server:
    """The wrap of a listening server: opens packets that bring their key along, and those of older clients.

    `old`: the wrap of clients without a key of their own (None: they are refused). An opened packet's `keys`
    are those of its session.
    """

    name = "tls-crypt-v2"
    has_packet_ids = True
    overhead = TlsCryptKeys.overhead
    wrapped_key = b""
    first_packet_id = 1

    def __init__(self, key: ServerWrapKey, old: WrapKeys | None = None) -> None:
        self._key = key
        self.old = old

    @property
    def secrets(self) -> WrapSecrets:
        authenticate, encrypt = self._key.secrets
        return WrapSecrets("SHA256", receive=authenticate, receive_cipher=encrypt)

    def seal(self, header: ControlHeader, packet_id: int, packet_time: int, body: bytes) -> bytes:
        """Seals for `old`: what belongs to a client's own key is sealed by the keys of its packet.

        Raises:
            RemoteProtocolError: there is no `old`.
        """
        return self._of_old().seal(header, packet_id, packet_time, body)

    def open(self, datagram: bytes) -> OpenedControl:
        if parse_header(datagram).opcode not in CARRIERS:
            old = self._of_old()
            return old.open(datagram).under(old)
        packet, wrapped = split_wrapped_key(datagram)
        client_key = self._key.unwrap(wrapped)
        keys = TlsCryptV2Keys(client_key.key, Role.SERVER, client_key=client_key)
        return keys.open_without_key(packet).under(keys)

    def _of_old(self) -> WrapKeys:
        if self.old is None:
            raise RemoteProtocolError("wrap_mismatch", "it brought no tls-crypt-v2 key along")
        return self.old

    def __repr__(self) -> str:
        return f"TlsCryptV2Server(old={self.old!r})"


def split_wrapped_key(datagram: bytes) -> tuple[bytes, bytes]:
    """The packet, and the wrapped key behind it, whose last two bytes are its length.

    Raises:
        RemoteProtocolError: `bad_length`.
    """
    length = int.from_bytes(datagram[-LENGTH_FIELD:], "big")
    if not LENGTH_FIELD < length < len(datagram):
        raise RemoteProtocolError("bad_length", "the wrapped client key is cut off")
    return datagram[:-length], datagram[-length:]
