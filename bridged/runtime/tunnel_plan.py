"""What one tunnel is made of, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridged.addresses import Endpoint, Remote
from bridged.protocol.session_types import SessionSettings
from bridged.protocol.tls_port import TlsEngineFactory
from bridged.protocol.wrap import WrapKeys
from bridged.units import UnixSeconds


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """What a tunnel is made of; built from the configuration by `trust` and the daemon.

    `certificates`: role -> end of validity. `tap`, `tap_mac` for people. `transport`: `udp`.
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
    local: Endpoint | None = None
    exit_notify: bool = True
    transport: str = "udp"
    certificates: Mapping[str, UnixSeconds] | None = None
