"""What is fixed for all sessions of one end of a tunnel.

Pure: values only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.packets.framing_choice import FramingSetting
from bridged.protocol.role import Role
from bridged.protocol.session.login import ClientLogin


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What is fixed for all sessions of one end of a tunnel. Times are in seconds, sizes in bytes."""

    role: Role
    """Client or server."""
    ciphers: tuple[Cipher, ...]
    """Accepted for the data channel, the preferred one first."""
    fallback_cipher: Cipher | None = None
    """For peers that negotiate no cipher (`data-ciphers-fallback`)."""
    is_point_to_point: bool = False
    """Nothing is pushed or pulled."""
    tun_mtu: int = 1500
    """The largest Ethernet payload."""
    framing: FramingSetting = "auto"
    """Compression framing, without compression."""
    fragment: int = 0
    """Payloads that need larger packets are cut; both ends must do so. 0: neither does."""
    digest: str = "SHA1"
    """OpenVPN's `auth`: of the options string, and of the HMAC with CBC ciphers."""
    wrap_name: str = "none"
    """`none`, `tls-auth`, `tls-crypt` or `tls-crypt-v2`."""
    wrap_key: StaticKey | None = None
    """The key of the wrap, or of this session if clients have their own; a dynamic wrap is made from it."""
    wrap_direction: int | None = None
    """The `key-direction` of tls-auth; it shows in the options string."""
    use_exporter: bool = True
    """False: derive data keys by the PRF, and announce nothing that needs the TLS exporter."""
    tls_timeout: float = 2.0
    """Before the first retransmission of a control packet; each further one doubles it."""
    tls_mtu: int = 1250
    """The largest control packet."""
    hand_window: float = 60.0
    """A negotiation must be over within this time."""
    tran_window: float = 3600.0
    """An old key lives this long after its successor's negotiation began."""
    reneg_seconds: float = 3600.0
    """Renew the data key this often; 0: never by time."""
    ping: int = 0
    """What a server pushes to its clients as `ping`; 0: nothing. Point to point: our own."""
    ping_restart: int = 0
    """What a server pushes to its clients as `ping-restart`; 0: nothing. Point to point: our own."""
    push: tuple[str, ...] = ()
    """Further options that a server pushes, as OpenVPN writes them."""
    is_stream: bool = False
    """The session's packets go through a TCP connection."""
    version: str = "bridged"
    """What a client announces as IV_VER."""
    platform: str = "linux"
    """What a client announces as IV_PLAT."""
    checks_login: bool = False
    """A server asks for user names and passwords, in each renegotiation too."""
    login: ClientLogin | None = field(default=None, repr=False)
    """A client's user name and password; None: its certificate is all it has."""
