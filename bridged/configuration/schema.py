"""The configuration's keys, types, units and defaults.

Unknown keys are refused. Names contain the units. `load` adds file and line to errors.
"""

from __future__ import annotations

from difflib import get_close_matches
from ipaddress import ip_interface
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bridged.addresses import Endpoint, MacAddress, Remote, is_host_name
from bridged.catalogue.settings import Priority, limits_of_key, row_of_key
from bridged.configuration.access import AddressPool, Authentication, Client, Login, Proxy
from bridged.configuration.section import Section
from bridged.link_planning.vlans import parse_vlans
from bridged.protocol.keys.cipher import DEFAULT_CIPHERS
from bridged.protocol.packets.fragments import FRAGMENT_LEAST
from bridged.protocol.packets.framing_choice import FramingSetting

DEFAULT_PORT = 1194
DEFAULT_METRICS_PORT = 9743
DEFAULT_SHARED_PORT = 443

InterfaceName = Annotated[str, Field(min_length=1, max_length=15, pattern=r"^[!-.0-9;-~]+$")]
DigestName = Literal["SHA1", "SHA256", "SHA384", "SHA512"]
CipherName = Literal[
    "AES-256-GCM",
    "AES-128-GCM",
    "CHACHA20-POLY1305",
    "AES-192-GCM",
    "AES-256-CBC",
    "AES-192-CBC",
    "AES-128-CBC",
]


def dataplane_key(path: str) -> Any:
    """The field of a key that sets a data plane: default, limits and meaning are those of the catalogue."""
    row = row_of_key(path)
    key = row.setting.key
    assert key is not None
    least, most = limits_of_key(path)
    default = row.default if key.default is None else key.default
    return Field(default, ge=least, le=most, description=row.setting.meaning)


_WAN_MTU_LEAST, _WAN_MTU_MOST = limits_of_key("wan_mtu")


class Log(Section):
    """Structured logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least important events to write"
    )
    format: Literal["auto", "console", "json", "journald"] = Field(
        "auto", description="auto: console on a terminal, journald under systemd, else json"
    )


class Metrics(Section):
    """Prometheus metrics over HTTP."""

    listen: str | None = Field("127.0.0.1:9743", description="host:port of /metrics; null turns it off")
    bearer_token_file: Path | None = Field(
        None, description="this or `web_config_file` is required unless `listen` is loopback"
    )
    web_config_file: Path | None = Field(
        None,
        description="TLS, client certificates and users with passwords, in the format of Prometheus' "
        "exporters; followed while the daemon runs",
    )
    max_peers: int = Field(500, ge=1, description="peers that get their own series; all others are summed")
    peer_retention_seconds: float = Field(
        86400,
        ge=0,
        description="how long a disconnected peer keeps its series; configured peers always keep theirs",
    )
    peer_label: Literal["name", "hash", "none"] = Field(
        "name",
        description="what the label `peer` shows: the name, a hash of it, or nothing (all peers summed)",
    )

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str | None) -> str | None:
        return value if value is None else _endpoint(value, DEFAULT_METRICS_PORT)


class Admin(Section):
    """The API behind `bridged status`, `reload`, `confirm`, `kick` and `revoke`."""

    socket: Path = Field(Path("/run/bridged/bridged.sock"), description="Unix socket, mode 0600")


class Bridge(Section):
    """A kernel bridge. An existing one is adopted; otherwise it is made."""

    ports: tuple[InterfaceName, ...] = Field((), description="LAN interfaces that join the bridge")
    addresses: tuple[str, ...] = Field((), description="addresses of the bridge, as 192.0.2.1/24")
    mtu: int | None = Field(
        None,
        ge=576,
        le=65535,
        description="MTU of bridge and LAN ports; default: that of the LAN ports",
    )
    mac: str | None = Field(
        None, description="fixed MAC address; default: one that stays when ports come and go"
    )
    stp: bool | None = Field(None, description="spanning tree; default: off on a bridge that we make")
    ageing_seconds: float | None = Field(
        None, ge=0, description="time after which the bridge forgets a silent station"
    )
    forward_delay_seconds: float | None = Field(
        None, ge=0, le=30, description="spanning tree: time in listening and in learning"
    )
    group_forward_mask: int | None = Field(
        None,
        ge=0,
        le=0xFFF8,
        description="link-local groups 01-80-C2-00-00-0X that are forwarded (group_fwd_mask); 16384 is LLDP",
    )
    move_addresses: bool = Field(True, description="move the ports' addresses and routes to the bridge")
    vlans: tuple[str, ...] | None = Field(
        None,
        description="on a VLAN-aware bridge: VLANs of the tunnels' adapters, as `20`, `100-199` or "
        "`1 untagged`; default: those of the LAN ports",
    )

    @field_validator("addresses")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_interface_address(item) for item in value)

    @field_validator("mac")
    @classmethod
    def _mac(cls, value: str | None) -> str | None:
        return value if value is None else str(_unicast(value))

    @field_validator("vlans", mode="before")
    @classmethod
    def _vlan_numbers(cls, value: object) -> object:
        """In YAML, 20 is a number."""
        if not isinstance(value, list | tuple):
            return value
        return [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]

    @field_validator("vlans")
    @classmethod
    def _vlans(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        parse_vlans(value or ())
        return value


class TapOptions(Section):
    """The virtual adapter of one tunnel."""

    name: InterfaceName | None = Field(None, description="default: tap-NAME, cut to 15 bytes")
    mac: str = Field(
        "random",
        description="random (kept across restarts), ephemeral, stable (by machine id), or a fixed address",
    )
    lock: bool = Field(True, description="at most one process may use the adapter")
    persistent: bool = Field(False, description="keep the adapter when the daemon stops")
    mtu: int | None = Field(None, ge=576, le=65521, description="default: the tunnel's `mtu`")
    queue_frames: int = Field(
        4096, ge=64, le=1_000_000, description="txqueuelen; the kernel's 1000 overflow under load"
    )
    offload: bool = Field(True, description="exchange super-frames with the kernel")

    @field_validator("mac")
    @classmethod
    def _mac(cls, value: str) -> str:
        return value if value in ("random", "ephemeral", "stable") else str(_unicast(value))


class Tls(Section):
    """This end's certificate, and which peers are trusted.

    Each of `ca`, `certificate`, `key`, `crl` is a file or inline PEM.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    crl: str | None = None
    embedded: bool = Field(
        False, description="use the embedded CA in the state folder, which the first start makes"
    )
    peer_fingerprints: tuple[str, ...] = Field(
        (), description="SHA-256 of accepted peer certificates, instead of the CA or in addition to it"
    )
    peer_role: Literal["auto", "client", "server", "compatible", "any"] = Field(
        "auto",
        description="extended key usage required of the peer (remote-cert-tls); auto: the other role; "
        "compatible: the other role, or none at all, as OpenVPN without remote-cert-tls",
    )
    peer_name: str | None = Field(None, description="required common name of the peer's certificate")
    peer_name_prefix: str | None = Field(None, description="required beginning of that name")
    peer_subject: str | None = Field(
        None,
        description="required subject of the peer's certificate, as OpenVPN prints it: "
        "`C=NL, O=Example, CN=vpn`",
    )
    crl_expired: Literal["refuse", "warn"] = Field(
        "refuse",
        description="a revocation list that has ended: refuse everybody, or warn and use it as it is",
    )
    verify_command: tuple[str, ...] = Field(
        (),
        description="server: a program that is asked about each certificate of a client's chain "
        "(`tls-verify`)",
    )
    version_min: Literal["1.2", "1.3"] = Field("1.2", description="oldest TLS version accepted")
    version_max: Literal["1.2", "1.3"] = Field("1.3", description="newest TLS version offered")

    @field_validator("version_min", "version_max", mode="before")
    @classmethod
    def _version(cls, value: object) -> object:
        """In YAML 1.2 without quotes is a number."""
        return str(value) if isinstance(value, float) else value


class Wrap(Section):
    """Protection of the control channel against strangers (OpenVPN's tls-auth, tls-crypt, tls-crypt-v2).

    `static-key` is none: there is no TLS at all (OpenVPN's `secret`), for one old peer.
    """

    mode: Literal["none", "tls-auth", "tls-crypt", "tls-crypt-v2", "static-key"] = Field(
        "none",
        description="must be the same at all peers; with tls-crypt-v2 each client has a key of its own, and "
        "one that is stolen can be refused alone; static-key: no TLS, no forward secrecy",
    )
    key: str | None = Field(
        None,
        description="a file or its text: the static key, or with tls-crypt-v2 the server's or this client's; "
        "optional with tls.embedded, which makes one",
    )
    old_clients_key: str | None = Field(
        None,
        description="a server with mode tls-crypt-v2: the key of clients that have no own one, as OpenVPN "
        "2.4; a file or its text",
    )
    old_clients_mode: Literal["tls-crypt", "tls-auth"] = Field(
        "tls-crypt", description="how these wrap; with tls-auth, `direction` and `digest` are theirs"
    )
    verify_command: tuple[str, ...] = Field(
        (),
        description="a server with mode tls-crypt-v2: a program that is asked about the metadata of a "
        "client's key (`tls-crypt-v2-verify`), once the client has proved that it has the key",
    )
    max_age_days: float | None = Field(
        None,
        gt=0,
        description="a server with mode tls-crypt-v2: refuse client keys made longer ago, or without a date",
    )
    direction: Literal[0, 1] | None = Field(None, description="tls-auth, static-key: key-direction")
    digest: DigestName = Field("SHA1", description="tls-auth, static-key: `auth`")

    @model_validator(mode="after")
    def _key_has_a_mode(self) -> Self:
        if self.mode == "none" and self.key is not None:
            raise ValueError("`key` needs mode tls-auth, tls-crypt, tls-crypt-v2 or static-key")
        for name in ("old_clients_key", "max_age_days", "verify_command"):
            if self.mode != "tls-crypt-v2" and getattr(self, name):
                raise ValueError(f"`{name}` needs mode tls-crypt-v2")
        if "old_clients_mode" in self.model_fields_set and self.old_clients_key is None:
            raise ValueError("`old_clients_mode` needs `old_clients_key`")
        return self


class Keepalive(Section):
    """Keepalive interval, and how long without traffic before the peer is considered gone.

    A server pushes both to its clients.
    """

    ping_seconds: float = Field(10, ge=0, description="0: no pings")
    restart_seconds: float = Field(60, ge=0, description="0: never time out")

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.ping_seconds and self.restart_seconds and self.restart_seconds < 2 * self.ping_seconds:
            raise ValueError("restart_seconds must be at least twice ping_seconds")
        return self


class Renegotiate(Section):
    """When data keys are replaced; 0 turns a limit off."""

    seconds: float = Field(3600, ge=0, description="age of a key")
    bytes: int = dataplane_key("renegotiate.bytes")
    packets: int = dataplane_key("renegotiate.packets")


class RemoteSizes(Section):
    """Sizes for one server of `remotes`, which replace the tunnel's."""

    mss: Literal["auto", "off"] | Annotated[int, Field(ge=88, le=65535)] | None = Field(
        None, description="largest TCP MSS (mssfix); default: the tunnel's"
    )
    wan_mtu: int | None = Field(
        None,
        ge=_WAN_MTU_LEAST,
        le=_WAN_MTU_MOST,
        description="largest outer packet that carries TCP; default: the tunnel's",
    )


class StatusFile(Section):
    """A status file as OpenVPN writes it, for programs that read those."""

    file: Path | None = Field(None, description="its path; default: none is written")
    interval_seconds: float = Field(60, ge=1, le=86400, description="how often it is written")
    version: Literal[1, 2, 3] = Field(
        2, description="format, as OpenVPN's `status-version`: 1, 2 (commas) or 3 (tabs)"
    )


class Tunnel(Section):
    """One tunnel: one TAP in one bridge, with one peer (client) or many (server)."""

    role: Literal["server", "client"] = Field(
        description="server: waits for clients; client: connects to a server"
    )
    point_to_point: bool = Field(
        False,
        description="the other end is OpenVPN without `mode server` or `client`: it is the only peer, "
        "and no options are pushed",
    )
    bridge: InterfaceName = Field(description="the bridge that the adapter joins: a key of `bridges`")
    tap: TapOptions = TapOptions()
    transport: Literal["udp", "tcp", "both"] = Field(
        "udp", description="server: what clients connect by; a client's `remotes` say it themselves"
    )
    listen: str | None = Field(None, description="server: address:port to listen on; default [::]:1194")
    listen_tcp: str | None = Field(
        None, description="server: address:port for TCP, where it is not that of `listen`"
    )
    port_share: str | None = Field(
        None,
        description="server: host:port of another server, to which TCP connections go that are no OpenVPN",
    )
    remotes: tuple[str, ...] = Field(
        (),
        description="client: servers, tried in order, as host:port; host:port/tcp uses TCP; "
        "/udp4, /udp6, /tcp4 and /tcp6 use one IP family only",
    )
    proxy: Proxy | None = Field(None, description="client: what servers over TCP are reached through")
    remotes_order: Literal["listed", "shuffled"] = Field(
        "listed",
        description="client: call the servers in the order of `remotes`, or spread clients over them; in "
        "both orders the one that worked last comes first while the tunnel runs",
    )
    local: str | None = Field(
        None,
        description="client: address:port to send from; default: another port for each attempt, which "
        "OpenVPN servers answer sooner",
    )
    tls: Tls
    wrap: Wrap = Wrap()
    login: Login | None = Field(None, description="client: user name and password")
    authentication: Authentication | None = Field(None, description="server: check passwords")
    clients: dict[Annotated[str, Field(min_length=1, max_length=64)], Client] = Field(
        {}, description="server: settings of single clients, by name"
    )
    only_known_clients: bool = Field(
        False, description="server: refuse clients that are not in `clients` (`ccd-exclusive`)"
    )
    address_pool: AddressPool | None = Field(None, description="server: give clients addresses")
    ciphers: tuple[CipherName, ...] = Field(
        cast("tuple[CipherName, ...]", tuple(cipher.value for cipher in DEFAULT_CIPHERS)),
        min_length=1,
        description="first choice first; those of the CBC family are for old peers only",
    )
    fallback_cipher: CipherName | None = Field(
        None,
        description="for peers that negotiate no cipher, such as OpenVPN 2.3 (data-ciphers-fallback); "
        "default: only ciphers of `ciphers` that they name",
    )
    auth: DigestName | None = Field(
        None, description="digest of the HMAC that goes with CBC ciphers; default: wrap.digest"
    )
    key_derivation: Literal["auto", "exporter", "prf"] = Field(
        "auto", description="auto: exporter if both ends support it; prf: offer the old method only"
    )
    compression_framing: FramingSetting = Field(
        "auto",
        description="the bytes that OpenVPN's `comp-lzo` and `compress` put around frames; nothing is ever "
        "compressed. auto: what each client asks for, or the server pushes; comp-lzo, stub, stub-v2: that of "
        "a server which pushes none, or for all clients that know it; none: refuse such peers",
    )
    keepalive: Keepalive = Keepalive()
    renegotiate: Renegotiate = Renegotiate()
    handshake_seconds: float = Field(60, ge=5, le=3600, description="longest time for a handshake")
    transition_seconds: float = Field(3600, ge=1, description="how long a replaced key is still accepted")
    peers_max: int = Field(1024, ge=1, le=16_000_000, description="server: most sessions at once")
    duplicate_names: bool = Field(False, description="server: let one certificate connect several times")
    peers: tuple[str, ...] = Field(
        (), description="server: names that have metrics even before they first connect"
    )
    forward_between_peers: bool = dataplane_key("forward_between_peers")
    push: tuple[str, ...] = Field((), description="server: more OpenVPN options for clients")
    mss: Literal["auto", "off"] | Annotated[int, Field(ge=88, le=65535)] = Field(
        "auto", description="largest TCP MSS (mssfix); auto: what fits `wan_mtu`"
    )
    mtu: Literal["auto"] | Annotated[int, Field(ge=576, le=65521)] = Field(
        1500,
        description="tun-mtu; must be the same at both ends; auto: 1500 (or `tap.mtu`), and measure what "
        "each peer's path bears, up to `wan_mtu` if that is set; it includes `answer_too_big`",
    )
    fragment: Literal[0] | Annotated[int, Field(ge=FRAGMENT_LEAST, le=65535)] = Field(
        0,
        description="largest UDP payload: frames that need more are cut, and joined at the other end, which "
        "must have `fragment` as well; 0: the network cuts what is too large",
    )
    wan_mtu: int = dataplane_key("wan_mtu")
    answer_too_big: bool = dataplane_key("answer_too_big")
    remote_sizes: dict[str, RemoteSizes] = Field(
        {}, description="client: sizes for single servers, each under its entry in `remotes`"
    )
    fdb_ageing_seconds: float = dataplane_key("fdb_ageing_seconds")
    fdb_capacity: int = dataplane_key("fdb_capacity")
    replay_window: int = dataplane_key("replay_window")
    status: StatusFile = StatusFile()
    exit_notify: bool = Field(True, description="tell the peer when this end stops")
    dataplane: Literal["auto", "native", "portable"] = Field(
        "auto", description="auto: native if it is built, otherwise portable"
    )
    workers: int = dataplane_key("workers")
    busy_poll_microseconds: int = dataplane_key("busy_poll_microseconds")
    moderation_microseconds: int = dataplane_key("moderation_microseconds")
    priority: Priority = dataplane_key("priority")
    coalesce: Literal["auto", "on", "off"] = Field(
        "auto", description="join received segments into super-frames; auto: only those that pass a self-test"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_tls(cls, data: object) -> object:
        """With a static key there are no certificates."""
        wrap = data.get("wrap") if isinstance(data, dict) else None
        if isinstance(data, dict) and isinstance(wrap, dict) and wrap.get("mode") == "static-key":
            return {"tls": {}, "point_to_point": True, **data}
        return data

    @model_validator(mode="after")
    def _by_role(self) -> Self:
        if self.role == "client" and not self.remotes:
            raise ValueError("a client needs `remotes`, for example `remotes: [vpn.example.net:1194]`")
        if self.role == "client" and self.listen:
            raise ValueError("`listen` is for servers; a client has `local`")
        if self.role == "client" and (self.listen_tcp or self.port_share or self.transport != "udp"):
            raise ValueError(
                "`transport`, `listen_tcp` and `port_share` are for servers; write "
                "`remotes: [vpn.example.net:443/tcp]`"
            )
        for key in ("listen_tcp", "port_share"):
            if getattr(self, key) and self.transport == "udp":
                raise ValueError(f"`{key}` needs `transport: both`, or `transport: tcp` for TCP alone")
        for text in self.remote_sizes:
            if text not in self.remotes:
                raise ValueError(f"`remote_sizes` has {text}, which is not in `remotes`")
        if self.proxy and not any(Remote.parse(text).server.transport == "tcp" for text in self.remotes):
            raise ValueError(
                "`proxy` needs a client with a server over TCP: `remotes: [vpn.example.net:443/tcp]`"
            )
        if self.role == "server" and self.login is not None:
            raise ValueError("`login` is for clients; a server has `authentication`")
        if self.role == "client" and self.authentication is not None:
            raise ValueError("`authentication` is for servers; a client has `login`")
        if self.role == "server" and (self.remotes or self.local or self.remotes_order != "listed"):
            raise ValueError("`remotes`, `remotes_order` and `local` are for clients; a server has `listen`")
        if self.wrap.mode != "none" and self.wrap.key is None and not self.tls.embedded:
            raise ValueError(f"`wrap` with mode {self.wrap.mode} needs wrap.key")
        return self

    @field_validator("remote_sizes")
    @classmethod
    def _remote_sizes(cls, value: dict[str, RemoteSizes]) -> dict[str, RemoteSizes]:
        return {_remote(text): sizes for text, sizes in value.items()}

    @property
    def tun_mtu(self) -> int:
        """Bytes that both ends agree on."""
        return (self.tap.mtu or 1500) if self.mtu == "auto" else self.mtu

    @property
    def adapter_mtu(self) -> int:
        """Bytes of the TAP's MTU."""
        return self.tap.mtu or self.tun_mtu

    @field_validator("port_share")
    @classmethod
    def _shared(cls, value: str | None) -> str | None:
        return None if value is None else _endpoint(value, DEFAULT_SHARED_PORT)

    @field_validator("remotes")
    @classmethod
    def _remotes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_remote(text) for text in value)

    @field_validator("listen", "listen_tcp", "local")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return None
        text = "" if value.isdigit() else _endpoint(value, DEFAULT_PORT)
        if not text or not Endpoint.parse(text).is_numeric:
            raise ValueError(f"must be an IP address and a port, not {value!r}")
        return text


class Configuration(Section):
    """The whole file."""

    _inline_files: dict[tuple[str | int, ...], Path] = PrivateAttr(default_factory=dict)

    state_directory: Path = Field(
        Path("/var/lib/bridged"), description="folder for what survives restarts: embedded CA, MAC addresses"
    )
    user: str | None = Field(
        None,
        min_length=1,
        description="who the daemon becomes if root starts it; default: `bridged` if there is such a user; "
        "root: nobody else",
    )
    log: Log = Log()
    metrics: Metrics = Metrics()
    admin: Admin = Admin()
    bridges: dict[InterfaceName, Bridge]
    tunnels: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")], Tunnel]

    def file_of(self, path: tuple[str | int, ...]) -> Path | None:
        """The file that has the text of the certificate or key at `path`; None without such a text."""
        return self._inline_files.get(path)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, tunnel in self.tunnels.items():
            if tunnel.bridge not in self.bridges:
                close = get_close_matches(tunnel.bridge, self.bridges, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise PydanticCustomError(
                    "no_bridge",
                    "no bridge {bridge} in `bridges`{hint}",
                    {"bridge": repr(tunnel.bridge), "hint": hint, "path": ("tunnels", name, "bridge")},
                )
        return self


def tap_name(tunnel_name: str, tunnel: Tunnel) -> str:
    """The adapter's name: as configured, else `tap-` and the tunnel's name, cut to 15 bytes."""
    return tunnel.tap.name or f"tap-{tunnel_name}"[:15]


def _endpoint(text: str, default_port: int) -> str:
    """`text` as host:port, the host an IP address or a DNS name."""
    endpoint = Endpoint.parse(text, default_port)
    if not endpoint.is_numeric and not is_host_name(endpoint.host):
        raise ValueError(f"{text!r}: the host is neither an IP address nor a name")
    return str(endpoint)


def _remote(text: str) -> str:
    """`text` as host:port, with `/` and transport or IP family if it names them."""
    remote = Remote.parse(text, DEFAULT_PORT)
    _endpoint(remote.server.address, DEFAULT_PORT)
    return str(remote)


def _interface_address(text: str) -> str:
    """`text` as address/prefix; without a prefix it would be a network of one address."""
    try:
        address = ip_interface(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an address with a prefix length, such as 192.0.2.1/24") from None
    if "/" not in text:
        prefix = 24 if address.version == 4 else 64
        raise ValueError(f"{text!r} needs the network's prefix length: write {address.ip}/{prefix}")
    return str(address)


def _unicast(text: str) -> MacAddress:
    address = MacAddress.parse(text)
    if address.is_multicast or address.is_zero:
        raise ValueError(f"{text} cannot be an adapter's address (multicast or all zero)")
    return address
