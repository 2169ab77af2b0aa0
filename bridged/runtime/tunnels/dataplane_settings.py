"""From one tunnel's configuration to its data plane's settings."""

from __future__ import annotations

from bridged.configuration.schema import Tunnel
from bridged.dataplane import Build, CoalesceKind, fits_segments
from bridged.dataplane.contract import DataplaneSettings, TapPort
from bridged.runtime.tunnels.mss import mss_limit
from bridged.runtime.tunnels.tunnel_credentials import bind_endpoint
from bridged.units import Octets, Seconds


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
        ageing=Seconds(tunnel.fdb_ageing_seconds),
        fdb_capacity=tunnel.fdb_capacity,
        replay_window=tunnel.replay_window,
        forward_between_peers=tunnel.forward_between_peers,
        coalesce=kinds,
        renegotiate_bytes=tunnel.renegotiate.bytes,
        renegotiate_packets=tunnel.renegotiate.packets,
        wan_mtu=Octets(tunnel.wan_mtu),
        workers=tunnel.workers,
        busy_poll=tunnel.busy_poll_microseconds,
        moderation=tunnel.moderation_microseconds,
        priority=tunnel.priority,
    )
