"""A tunnel's state at one moment, put together from its sessions, its data plane and its statistics."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from bridged.dataplane.contract import DataplaneSnapshot, PeerSnapshot
from bridged.runtime.snapshot import TunnelStatus
from bridged.runtime.tunnels.statistics import add_counts
from bridged.runtime.tunnels.tunnel import Tunnel, unix_now


def tunnel_status(tunnel: Tunnel) -> TunnelStatus:
    """Take the snapshot; traffic is not blocked."""
    figures = tunnel.dataplane.snapshot()
    local = tunnel.dataplane.local_endpoint
    plan, statistics = tunnel.plan, tunnel.statistics
    live = _live(tunnel, figures)
    tunnel.book.forget_expired(live, unix_now())
    return TunnelStatus(
        name=plan.name,
        role=tunnel.role,
        state="stopped" if tunnel.is_stopping else tunnel.state,
        up=not tunnel.is_stopping and tunnel.state in ("listening", "connected"),
        transport=plan.transport,
        wrap=plan.wrap.name,
        bridge=plan.bridge,
        tap=tunnel.tap_name,
        tap_mac=tunnel.tap_mac,
        local_endpoint=str(local) if local is not None else None,
        remote=tunnel.remote,
        peers_limit=plan.peers_limit,
        peers=tunnel.book.statuses(live, plan.wrap.name, plan.transport),
        dataplane=replace(
            figures, offload_fallbacks=add_counts(figures.offload_fallbacks, statistics.offload_fallbacks)
        ),
        handshakes=dict(statistics.handshakes),
        handshake_durations={phase: taken.snapshot() for phase, taken in statistics.durations.items()},
        authentications=dict(statistics.authentications),
        renegotiations=dict(statistics.renegotiations),
        control_drops=_control_drops(tunnel),
        certificates=dict(plan.certificates or {}),
        crl_next_update=plan.crl_next_update,
        mac_conflicts=dict(statistics.mac_conflicts),
        coalescing=tunnel.coalescing.described(),
        name_conflicts=statistics.name_conflicts,
        last_error=tunnel.last_error,
        refused=tunnel.refused.statuses(unix_now()),
    )


def _live(tunnel: Tunnel, figures: DataplaneSnapshot) -> dict[str, list[PeerSnapshot]]:
    """The peers that are up, by the name of their record."""
    live: dict[str, list[PeerSnapshot]] = defaultdict(list)
    for peer in figures.peers:
        link = tunnel.links.get(peer.handle)
        if link is not None and link.is_attached:
            record = tunnel.book.record(link.name)
            record.rtt = link.session.rtt
            live[record.name].append(peer)
    return live


def _control_drops(tunnel: Tunnel) -> dict[tuple[str, str], int]:
    drops = tunnel.statistics.control_drops.copy()
    for link in tunnel.links.values():
        for code, count in link.session.drops.items():
            drops["receive", code] += count
    return dict(drops)
