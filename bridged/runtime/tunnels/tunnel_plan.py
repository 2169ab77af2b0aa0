"""Everything that one tunnel is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bridged.addresses import Endpoint, Remote
from bridged.configuration.access import AddressPool, Authentication, Client
from bridged.errors import PeerRefusedError
from bridged.files import FileMark
from bridged.protocol.packets.wrap import WrapKeys
from bridged.protocol.session.settings import SessionSettings
from bridged.protocol.session.static_session import STATIC_KEY
from bridged.protocol.session.tls_session import TlsEngineFactory, TlsSummary
from bridged.runtime.tunnels.proxy import ProxySettings
from bridged.units import UnixSeconds


@dataclass(frozen=True, slots=True)
class AdmissionPlan:
    """Whom a server lets in besides what TLS checks, and with what.

    `authentication`: how passwords are checked (None: it asks for none). `verify_command`: asked about
    certificates. Files: `token_key` has the key of tokens, `addresses` which client has which address of the
    pool, `bans` the banned names, `refused_keys` the tls-crypt-v2 keys that are refused, `used_codes` the
    one-time codes that count no more. `key_seconds`: how old these keys may be, `key_command`: asked about
    their metadata.
    """

    authentication: Authentication | None = None
    verify_command: tuple[str, ...] = ()
    token_key: Path | None = None
    clients: Mapping[str, Client] = field(default_factory=dict)
    only_known_clients: bool = False
    address_pool: AddressPool | None = None
    addresses: Path | None = None
    bans: Path | None = None
    refused_keys: Path | None = None
    used_codes: Path | None = None
    key_seconds: float | None = None
    key_command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """Built from the configuration by `tunnel_credentials.plan_tunnel`.

    `certificates`: role -> end of validity. `crl_next_update`: when the revocation list ends (None: there is
    none); `crl_file`, `crl_mark`: its file, and how that was when it was read. `judge_peer`: why this plan
    would refuse a connected peer (None: it would not). `is_embedded`: certificates and list come from the
    embedded CA. `transport`: `udp`, `tcp` or `both`. `memory`: the file in which a client remembers the
    server that worked last, and a server where its clients were. `replays`: the file of a static key's
    `ReplayMark`. `probes_paths`: what each path bears is measured, up to `wan_mtu_most` (None: as much as
    frames need).
    """

    name: str
    bridge: str
    session: SessionSettings
    make_engine: TlsEngineFactory
    wrap: WrapKeys
    peers_limit: int = 1
    peer_names: tuple[str, ...] = ()
    peer_retention: float = float("inf")
    duplicate_names: bool = False
    remotes: tuple[Remote, ...] = ()
    shuffles_remotes: bool = False
    local: Endpoint | None = None
    listen_tcp: tuple[Endpoint, ...] = ()
    port_share: Endpoint | None = None
    proxy: ProxySettings | None = None
    exit_notify: bool = True
    transport: str = "udp"
    memory: Path | None = None
    replays: Path | None = None
    certificates: Mapping[str, UnixSeconds] | None = None
    crl_next_update: UnixSeconds | None = None
    crl_file: Path | None = None
    crl_mark: FileMark | None = None
    judge_peer: Callable[[TlsSummary], PeerRefusedError | None] | None = None
    is_embedded: bool = False
    probes_paths: bool = False
    wan_mtu_most: int | None = None
    admission: AdmissionPlan = field(default_factory=AdmissionPlan)

    @property
    def has_static_key(self) -> bool:
        """There is no TLS."""
        return self.session.wrap_name == STATIC_KEY
