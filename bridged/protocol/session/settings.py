"""What is fixed for all sessions of one tunnel end.

Pure: values only.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridged.protocol.keys.cipher import Cipher
from bridged.protocol.keys.static_key import StaticKey
from bridged.protocol.role import Role


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What is fixed for all sessions of one tunnel end.

    Times in seconds. `digest` is `auth`; `wrap_key` and `wrap_direction` are those of tls-auth or tls-crypt
    (they show in the options string and feed dynamic tls-crypt). `use_exporter` False: the PRF, and
    nothing that needs the exporter is announced. `push`: further options of a server, as OpenVPN writes
    them. `ping`, `ping_restart`: pushed by a server to its clients. `version`: announced as IV_VER.
    `reneg_seconds` 0: never by time.
    """

    role: Role
    ciphers: tuple[Cipher, ...]
    tun_mtu: int = 1500
    digest: str = "SHA1"
    wrap_name: str = "none"
    wrap_key: StaticKey | None = None
    wrap_direction: int | None = None
    use_exporter: bool = True
    tls_timeout: float = 2.0
    tls_mtu: int = 1250
    hand_window: float = 60.0
    tran_window: float = 3600.0
    reneg_seconds: float = 3600.0
    ping: int = 0
    ping_restart: int = 0
    push: tuple[str, ...] = ()
    version: str = "bridged"
    platform: str = "linux"
