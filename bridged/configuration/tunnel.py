"""One tunnel's keys, types, units and defaults. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from bridged.addresses import Endpoint, Remote
from bridged.catalogue.settings import Priority, limits_of_key
from bridged.configuration.access import AddressPool, Authentication, Client, Login, Proxy
from bridged.configuration.protection import Tls, Wrap
from bridged.configuration.section import Section
from bridged.configuration.values import (
    DEFAULT_PORT,
    CipherName,
    DigestName,
    InterfaceName,
    checked_endpoint,
    checked_remote,
    checked_unicast,
    dataplane_key,
)
from bridged.protocol.keys.cipher import DEFAULT_CIPHERS
from bridged.protocol.packets.fragments import FRAGMENT_LEAST
from bridged.protocol.packets.framing_choice import FramingSetting

DEFAULT_SHARED_PORT = 443

_WAN_MTU_LEAST, _WAN_MTU_MOST = limits_of_key("wan_mtu")


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
        return value if value in ("random", "ephemeral", "stable") else str(checked_unicast(value))


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
        return {checked_remote(text): sizes for text, sizes in value.items()}

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
        return None if value is None else checked_endpoint(value, DEFAULT_SHARED_PORT)

    @field_validator("remotes")
    @classmethod
    def _remotes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(checked_remote(text) for text in value)

    @field_validator("listen", "listen_tcp", "local")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return None
        text = "" if value.isdigit() else checked_endpoint(value, DEFAULT_PORT)
        if not text or not Endpoint.parse(text).is_numeric:
            raise ValueError(f"must be an IP address and a port, not {value!r}")
        return text


def tap_name(tunnel_name: str, tunnel: Tunnel) -> str:
    """The adapter's name: as configured, else `tap-` and the tunnel's name, cut to 15 bytes."""
    return tunnel.tap.name or f"tap-{tunnel_name}"[:15]
