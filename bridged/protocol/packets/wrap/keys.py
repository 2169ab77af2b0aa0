"""What every control-channel wrap offers.

Source: docs/protocol/control.md#2-2 to #2-5.
Pure: an interface and a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from bridged.protocol.packets.packet import ControlHeader

PACKET_ID_LENGTH: Final = 8
"""Packet id (4) and time (4) of an authenticated wrap."""
MAX_PACKET_ID: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class OpenedControl:
    """A control packet whose wrap is valid. The body is not parsed yet.

    `packet_id` and `packet_time` (Unix seconds) are 0 if the wrap has none. `keys`: those of its session,
    where each client has its own; else None.
    """

    header: ControlHeader
    packet_id: int
    packet_time: int
    body: bytes
    keys: WrapKeys | None = None

    def under(self, keys: WrapKeys) -> OpenedControl:
        """The same packet, of a session with these keys."""
        return replace(self, keys=keys)


@dataclass(frozen=True, slots=True)
class WrapSecrets:
    """The keys themselves, for a data plane that answers by itself: for HMAC, and for AES in tls-crypt."""

    digest: str = ""
    send: bytes = field(default=b"", repr=False)
    receive: bytes = field(default=b"", repr=False)
    send_cipher: bytes = field(default=b"", repr=False)
    receive_cipher: bytes = field(default=b"", repr=False)


class WrapKeys(Protocol):
    """Seals and opens control packets. Keeps no state: one object serves many sessions."""

    @property
    def name(self) -> str:
        """`none`, `tls-auth`, `tls-crypt` or `tls-crypt-v2`."""

    @property
    def overhead(self) -> int:
        """Bytes that the wrap adds to first byte, session id and body."""

    @property
    def has_packet_ids(self) -> bool:
        """Packets have an id and a time, by which replays are found."""

    @property
    def wrapped_key(self) -> bytes:
        """A client's key, sealed for its server (tls-crypt-v2); else empty."""

    @property
    def first_packet_id(self) -> int:
        """Where the packet ids of a session begin."""

    @property
    def secrets(self) -> WrapSecrets: ...

    def seal(self, header: ControlHeader, packet_id: int, packet_time: int, body: bytes) -> bytes:
        """The packet as sent. `packet_id` starts at 1; `packet_time` in Unix seconds."""

    def open(self, datagram: bytes) -> OpenedControl:
        """Check the wrap and remove it.

        Raises:
            RemoteProtocolError: `short_packet`, `bad_opcode`, `bad_length`, or `wrap_mismatch`
                if the packet was not made with our key.
        """
