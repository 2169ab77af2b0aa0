"""What both ends of a session agreed on.

Pure: values only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.packets.framing import Framing
from bridged.protocol.session.tls_session import TlsSummary
from bridged.units import WirePeerId

UNASKED_PASSWORD: Final = (
    "it sends a user name and password, which are not checked here: its certificate alone lets it in; "
    "remove `auth-user-pass` there"
)
OLD_CIPHER: Final = (
    "its frames go under {cipher}, which is slow and old; allow AES-256-GCM at both ends "
    "(every OpenVPN from 2.4 on has it)"
)


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both ends agreed on, once per session."""

    cipher: Cipher
    """The data channel's cipher."""
    transmit_peer_id: WirePeerId | None
    """The peer id in the data packets that we send; None: we send DATA_V1, which has none."""
    ping: int
    """Seconds between our pings on an idle line; 0: none."""
    ping_restart: int
    """Seconds without a packet after which we give the peer up; 0: never."""
    tun_mtu: int
    """Bytes of the largest Ethernet payload."""
    key_derivation: str
    """`exporter` or `prf`."""
    is_epoch: bool
    """Data packets have the epoch format of OpenVPN 2.7."""
    exit_by_control: bool
    """Both ends say EXIT on the control channel, not on the data channel."""
    dynamic_wrap: bool
    """Later keys have a tls-crypt wrap of their own."""
    tls: TlsSummary
    """The first TLS session."""
    framing: Framing = "none"
    """How payloads are framed, both ways."""
    fragment: int = 0
    """Bytes of the largest packet, to which payloads are cut; 0: they are not."""
    is_point_to_point: bool = False
    """Nothing was pushed; data packets of any peer id are taken."""
    peer_version: str | None = None
    """The client's IV_VER; None at a client."""
    peer_platform: str | None = None
    """The client's IV_PLAT; None at a client."""
    ignored: tuple[str, ...] = ()
    """Pushed options that have no meaning here."""
    warnings: tuple[str, ...] = ()
    """Differences between the options strings of both ends."""
    has_unasked_password: bool = False
    """The client sent a user name or a password, which nothing checks."""

    @property
    def old_cipher(self) -> str | None:
        """What to do about a cipher of the CBC family; None for an AEAD cipher."""
        return OLD_CIPHER.format(cipher=self.cipher.value) if self.cipher.is_cbc else None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What an operator may want to fix, in words."""
        remarks = [f"options differ: {text}" for text in self.warnings]
        if self.old_cipher is not None:
            remarks.insert(0, self.old_cipher)
        if self.has_unasked_password:
            remarks.insert(0, UNASKED_PASSWORD)
        return tuple(remarks)
