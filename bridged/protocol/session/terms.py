"""What both ends agreed on.

Pure: values only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.session.tls_port import TlsSummary
from bridged.units import WirePeerId

UNASKED_PASSWORD: Final = (
    "it sends a user name and password, and nobody asks for one here: its certificate alone let it in; "
    "remove `auth-user-pass` there"
)


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both ends agreed on, once per session.

    `transmit_peer_id` None: DATA_V1. `ping`, `ping_restart` in seconds (0: off) for this end.
    `ignored`: pushed options that have no meaning here. `warnings`: options-string differences.
    `has_unasked_password`: the client sent a user name or a password, and nobody looked at it.
    """

    cipher: Cipher
    transmit_peer_id: WirePeerId | None
    ping: int
    ping_restart: int
    tun_mtu: int
    key_derivation: str
    exit_by_control: bool
    dynamic_wrap: bool
    tls: TlsSummary
    peer_version: str | None = None
    peer_platform: str | None = None
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    has_unasked_password: bool = False

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is odd about this session, in words."""
        differences = tuple(f"options differ: {text}" for text in self.warnings)
        return (UNASKED_PASSWORD, *differences) if self.has_unasked_password else differences
