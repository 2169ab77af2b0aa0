"""A tunnel's state at one moment: from its sessions, its data plane and the records of its peers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from dataclasses import replace

from bridged.dataplane.contract import DataplaneSnapshot, PeerSnapshot
from bridged.runtime.snapshot import TunnelStatus
from bridged.runtime.tunnels.clock import unix_now
from bridged.runtime.tunnels.statistics import add_counts
from bridged.runtime.tunnels.tunnel import RunningTunnel


def tunnel_status(tunnel: RunningTunnel) -> Generator[None, None, TunnelStatus]:
    """Take the snapshot, in short steps for a loop that has other work; traffic is not blocked."""
    figures = tunnel.dataplane.snapshot()
    local = tunnel.dataplane.local_endpoint
    listening = [*([local] if local is not None else []), *tunnel.role.tcp_endpoints]
    plan, records, statistics = tunnel.plan, tunnel.records, tunnel.records.statistics
    live = _live(tunnel, figures)
    refused = add_counts(tunnel.tap.fallbacks, tunnel.tap.coalescing.fallbacks())
    fallbacks = add_counts(figures.offload_fallbacks, refused)
    records.book.forget_expired(live, unix_now())
    peers = yield from records.book.statuses(live, plan.session.wrap_name, plan.transport)
    return TunnelStatus(
        name=plan.name,
        role=tunnel.role.name,
        state=tunnel.state,
        up=tunnel.state in ("listening", "connected"),
        transport=plan.transport,
        wrap=plan.session.wrap_name,
        bridge=plan.bridge,
        tap=tunnel.tap.name,
        tap_mac=tunnel.tap.mac,
        local_endpoint=", ".join(map(str, listening)) or None,
        remote=tunnel.role.remote,
        peers_limit=plan.peers_limit,
        peers=peers,
        dataplane=replace(figures, offload_fallbacks=fallbacks),
        handshakes=dict(statistics.handshakes),
        handshake_durations={phase: taken.snapshot() for phase, taken in statistics.durations.items()},
        authentications=dict(statistics.authentications),
        renegotiations=dict(statistics.renegotiations),
        control_drops=_control_drops(tunnel),
        certificates=dict(plan.certificates or {}),
        crl_next_update=plan.crl_next_update,
        crl_loads=dict(statistics.crl_loads),
        admission=dict(tunnel.role.admission),
        mac_conflicts=dict(statistics.mac_conflicts),
        coalescing=tunnel.tap.coalescing.described(),
        name_conflicts=statistics.name_conflicts,
        last_error=records.last_error,
        refused=records.refused.statuses(unix_now()),
    )


def _live(tunnel: RunningTunnel, figures: DataplaneSnapshot) -> dict[str, list[PeerSnapshot]]:
    """The peers that are up, by the name of their record."""
    live: dict[str, list[PeerSnapshot]] = defaultdict(list)
    for peer in figures.peers:
        link = tunnel.links.get(peer.handle)
        if link is not None and link.is_attached:
            record = tunnel.records.book.record(link.name)
            record.rtt = link.session.rtt
            live[record.name].append(peer)
    return live


def _control_drops(tunnel: RunningTunnel) -> dict[tuple[str, str], int]:
    drops = tunnel.records.statistics.control_drops.copy()
    for link in tunnel.links.values():
        for code, count in link.session.drops.items():
            drops["receive", code] += count
    return dict(drops)
