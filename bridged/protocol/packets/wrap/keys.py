"""What every control-channel wrap offers.

Source: docs/protocol/control.md#2-2 to #2-4.
Pure: an interface and a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from bridged.protocol.packets.packet import ControlHeader

PACKET_ID_LENGTH: Final = 8
"""Packet id (4) and time (4) of an authenticated wrap."""
MAX_PACKET_ID: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class OpenedControl:
    """A control packet whose wrap was found good; the body is not yet parsed.

    `packet_id` and `packet_time` (Unix seconds) are 0 where the wrap has none.
    """

    header: ControlHeader
    packet_id: int
    packet_time: int
    body: bytes


@dataclass(frozen=True, slots=True)
class WrapSecrets:
    """The keys themselves, for a data plane that answers by itself. HMAC keys, and AES keys of tls-crypt."""

    digest: str = ""
    send: bytes = field(default=b"", repr=False)
    receive: bytes = field(default=b"", repr=False)
    send_cipher: bytes = field(default=b"", repr=False)
    receive_cipher: bytes = field(default=b"", repr=False)


class WrapKeys(Protocol):
    """Stateless sealing and opening of control packets; one object serves many sessions."""

    @property
    def name(self) -> str:
        """`none`, `tls-auth` or `tls-crypt`."""

    @property
    def overhead(self) -> int:
        """Octets that the wrap adds to first octet, session id and body."""

    @property
    def has_packet_ids(self) -> bool:
        """Packets carry packet id and time, so that replays can be told."""

    @property
    def secrets(self) -> WrapSecrets: ...

    def seal(self, header: ControlHeader, packet_id: int, packet_time: int, body: bytes) -> bytes:
        """The packet as it goes on the wire. `packet_id` from 1; `packet_time` in Unix seconds."""

    def open(self, datagram: bytes) -> OpenedControl:
        """Check the wrap and take it off.

        Raises:
            RemoteProtocolError: `short_packet`, `bad_opcode`, `bad_length`, or `wrap_mismatch`
                where the packet was not made with our key.
        """
