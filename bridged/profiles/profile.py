"""What an OpenVPN profile says, in our words.

Pure values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bridged.addresses import Endpoint, MacAddress, Remote
from bridged.protocol.text import visible


@dataclass(frozen=True, slots=True)
class Material:
    """A certificate, key or list: the `text` itself, or the `path` of a file as the profile writes it
    (relative to the profile's folder, or to its `cd`). `line` is where it stands."""

    line: int
    text: str | None = field(default=None, repr=False)
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something in the profile that has no effect here, or another one; `line` counts from 1.

    `text` may quote the profile, and is safe to print.
    """

    line: int
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", visible(self.text))


@dataclass(slots=True)
class Profile:
    """A client's profile, read. None and empty mean: not said, our default holds.

    Sizes are bytes, times seconds. `mss`: 0 is off, else the largest TCP MSS; `wan_mtu`: outer packet
    size that the MSS shall fit. `addresses` (as 192.0.2.1/24) belong on the bridge. `directory`: `cd`.
    `remote_sizes`: `mss` and `wan_mtu` of single servers, where they differ. `pkcs12`: CA, certificate and
    key in one file, or its Base64 text.
    """

    remotes: list[Remote] = field(default_factory=list)
    local: Endpoint | None = None
    ca: Material | None = None
    certificate: Material | None = None
    extra_certificates: Material | None = None
    key: Material | None = None
    pkcs12: Material | None = None
    crl: Material | None = None
    peer_fingerprints: list[str] = field(default_factory=list)
    peer_role: Literal["client", "server"] | None = None
    peer_name: str | None = None
    peer_name_prefix: str | None = None
    peer_subject: str | None = None
    version_min: Literal["1.2", "1.3"] | None = None
    version_max: Literal["1.2", "1.3"] | None = None
    wrap: Literal["none", "tls-auth", "tls-crypt"] = "none"
    wrap_key: Material | None = None
    wrap_direction: Literal[0, 1] | None = None
    wrap_digest: str | None = None
    ciphers: list[str] = field(default_factory=list)
    key_derivation: Literal["exporter"] | None = None
    tap_name: str | None = None
    tap_mac: MacAddress | None = None
    mtu: int | None = None
    mss: int | None = None
    wan_mtu: int | None = None
    remote_sizes: dict[Remote, tuple[int | None, int | None]] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)
    ping_seconds: int | None = None
    restart_seconds: int | None = None
    renegotiate_seconds: int | None = None
    renegotiate_bytes: int | None = None
    renegotiate_packets: int | None = None
    handshake_seconds: int | None = None
    transition_seconds: int | None = None
    replay_window: int | None = None
    exit_notify: bool | None = None
    directory: str | None = None
    notices: list[Notice] = field(default_factory=list)
