"""What an OpenVPN profile says, in terms of bridged.

Pure values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from bridged.addresses import Endpoint, MacAddress, Remote, TransportName
from bridged.protocol.text import visible


@dataclass(frozen=True, slots=True)
class Material:
    """A certificate, key or list: its `text`, or the `path` of a file as the profile writes it.

    Paths are relative to the profile's folder, or to its `cd`. `line` is its line in the profile.
    """

    line: int
    text: str | None = field(default=None, repr=False)
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """A remark about something in the profile that bridged ignores or does differently.

    `line` counts from 1; 0: the whole file. `directive` may be empty. Both texts are safe to print.
    """

    line: int
    reason: str
    directive: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", visible(self.reason))
        object.__setattr__(self, "directive", visible(self.directive))

    @property
    def text(self) -> str:
        """The whole remark, with the directive."""
        return f"`{self.directive}`: {self.reason}" if self.directive else self.reason


@dataclass(slots=True)
class LoginLine:
    """`auth-user-pass`. `material`: user name and password, a line each; None: nobody wrote them down.

    `has_name_only`: the file has no password.
    """

    material: Material | None = None
    has_name_only: bool = False


ProxyKind = Literal["http", "socks5"]


@dataclass(frozen=True, slots=True)
class ProxyLine:
    """`http-proxy` or `socks-proxy`. `login`: user name and password, a line each.

    `asks`: somebody is to be asked for them. `takes_login`: they are sent at all. `in_block`: it stands in a
    `<connection>`.
    """

    kind: ProxyKind
    where: Endpoint
    login: Material | None = None
    asks: bool = False
    takes_login: bool = False
    in_block: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses that the server hands out, and the length of their network's prefix."""

    first: IPv4Address
    last: IPv4Address
    prefix: int
    gateway: str | None = None

    @property
    def network(self) -> IPv4Network:
        return IPv4Network((self.first, self.prefix), strict=False)


@dataclass(slots=True)
class ServerSettings:
    """What only a server's file says. `listen` None: our default.

    `client_directory`: that of `client-config-dir`. `pushes_gateway`: the router that OpenVPN would push to
    clients beside `push`, or `dhcp`. `asks_passwords`: from all, or from those that send one
    (`may_lack_password`). `client_certificate`: None: required. `names_by_user`: clients are called by their
    user names. `old_wrap`: beside tls-crypt-v2.
    `clients`: what the files of `client_directory` say, by name; the reader fills it.
    """

    listen: Endpoint | None = None
    transport: TransportName = "udp"
    shares_port_with: Endpoint | None = None
    forwards_between_peers: bool = False
    allows_duplicate_names: bool = False
    peers_max: int | None = None
    wrap_max_age_days: int | None = None
    wrap_verify_command: list[str] = field(default_factory=list)
    old_wrap: Literal["tls-auth", "tls-crypt"] | None = None
    old_wrap_key: Material | None = None
    push: list[str] = field(default_factory=list)
    pushes_gateway: str | None = None
    client_directory: str | None = None
    asks_passwords: bool = False
    may_lack_password: bool = False
    client_certificate: Literal["optional", "none"] | None = None
    names_by_user: bool = False
    token_seconds: int | None = None
    pool: Pool | None = None
    only_known_clients: bool = False
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Profile:
    """A client's profile, or a server's file. None and empty: it does not say, and our default applies.

    Sizes in bytes, times in seconds. `mss`: the largest TCP MSS; 0: off. `wan_mtu`: the outer packet size
    that the MSS must fit. `addresses` (such as 192.0.2.1/24) belong to the bridge. `directory`: `cd`.
    `remote_sizes`: `mss` and `wan_mtu` of single servers, if they differ. `pkcs12`: CA, certificate and key
    in one file, or its Base64 text. `password`: the file of `askpass`. `bridge`: the one that a script of the
    file names. `proxy`: of the remotes over TCP. `server`: of a server's file only. `digest`: of the HMAC
    with CBC ciphers. `point_to_point`: one peer, and nothing is pushed.
    """

    server: ServerSettings | None = None
    point_to_point: bool = False
    bridge: str | None = None
    password: Material | None = None
    remotes: list[Remote] = field(default_factory=list)
    remotes_order: Literal["shuffled"] | None = None
    proxy: ProxyLine | None = None
    local: Endpoint | None = None
    ca: Material | None = None
    certificate: Material | None = None
    extra_certificates: Material | None = None
    key: Material | None = None
    pkcs12: Material | None = None
    crl: Material | None = None
    login: LoginLine | None = None
    challenge: Literal["scrv1", "concat"] | None = None
    peer_fingerprints: list[str] = field(default_factory=list)
    peer_role: Literal["client", "server", "compatible"] | None = None
    peer_name: str | None = None
    peer_name_prefix: str | None = None
    peer_subject: str | None = None
    version_min: Literal["1.2", "1.3"] | None = None
    version_max: Literal["1.2", "1.3"] | None = None
    wrap: Literal["none", "tls-auth", "tls-crypt", "tls-crypt-v2", "static-key"] = "none"
    wrap_key: Material | None = None
    wrap_direction: Literal[0, 1] | None = None
    wrap_digest: str | None = None
    ciphers: list[str] = field(default_factory=list)
    fallback_cipher: str | None = None
    digest: str | None = None
    key_derivation: Literal["exporter"] | None = None
    tap_name: str | None = None
    tap_mac: MacAddress | None = None
    compression_framing: Literal["comp-lzo", "stub", "stub-v2"] | None = None
    fragment: int | None = None
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

    @property
    def has_tls_auth(self) -> bool:
        """All clients wrap with tls-auth, or the old ones of a server do."""
        return self.wrap == "tls-auth" or (self.server is not None and self.server.old_wrap == "tls-auth")
