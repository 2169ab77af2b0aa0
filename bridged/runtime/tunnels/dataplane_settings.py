"""From one tunnel's configuration to its data plane's settings."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

from bridged.catalogue.settings import rows
from bridged.configuration.tunnel import Tunnel
from bridged.dataplane import Build, CoalesceKind, fits_segments
from bridged.dataplane.contract import DataplaneSettings, TapPort
from bridged.runtime.tunnels.mss import mss_limit
from bridged.runtime.tunnels.tunnel_credentials import bind_endpoint

_UNMEASURED_WAN_MTU: Final = 1492


def dataplane_settings(
    name: str, tunnel: Tunnel, port: TapPort, kind: Build, kinds: frozenset[CoalesceKind]
) -> DataplaneSettings:
    """Settings for tunnel `name` with the adapter `port` and a data plane of this build.

    `kinds`: what may be joined into super-frames.
    """
    fits_path = fits_segments(kind, port)
    return DataplaneSettings(
        tunnel=name,
        tap=port,
        # A client lends the socket of its handshake later.
        bind=bind_endpoint(tunnel) if tunnel.role == "server" else None,
        mss_limit=mss_limit(tunnel, fits_path=fits_path),
        mss_fits_path=fits_path and tunnel.mss == "auto",
        coalesce=kinds,
        static_key=tunnel.wrap.mode == "static-key",
        **_configured(tunnel),
    )


def _configured(tunnel: Tunnel) -> dict[str, Any]:
    """The settings that have a key of their own."""
    keys = {name: row.setting.key for name, row in rows().items()}
    found = {name: attrgetter(key.path)(tunnel) for name, key in keys.items() if key is not None}
    if tunnel.mtu == "auto":
        # Until a path was measured, and to learn of one that bears less.
        found |= {"answer_too_big": True, "wan_mtu": tunnel.wan_mtu or _UNMEASURED_WAN_MTU}
    return found
