"""/metrics/openvpn: the names of the common OpenVPN exporter, for dashboards and alerts that exist.

Source: kumina/openvpn_exporter and its fork natrontech/openvpn-exporter, run with `-ignore.individuals`: no
addresses, ports or connection times, which make series without end. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from bridged.configuration.schema import Metrics
from bridged.dataplane.contract import Direction
from bridged.runtime.snapshot import DaemonSnapshot, PeerStatus, TunnelStatus
from bridged.telemetry.exposition import render
from bridged.telemetry.peer_totals import OTHER, PeerFold, Sum, totals_of

_GAUGES: Final = {
    "openvpn_up": "Whether the status of this tunnel could be read; always 1.",
    "openvpn_status_update_time_seconds": "When the figures were taken, Unix time.",
    "openvpn_server_connected_clients": "Sessions established now.",
}
_COUNTERS: Final = {
    "openvpn_server_client_received_bytes": "Bytes received from the client.",
    "openvpn_server_client_sent_bytes": "Bytes sent to the client.",
    "openvpn_client_tun_tap_read_bytes": "Bytes read from the adapter.",
    "openvpn_client_tun_tap_write_bytes": "Bytes written to the adapter.",
    "openvpn_client_tcp_udp_read_bytes": "Bytes received from the server.",
    "openvpn_client_tcp_udp_write_bytes": "Bytes sent to the server.",
    "openvpn_client_auth_read_bytes": "Bytes received and authenticated.",
}
_CLIENT_BYTES: Final[dict[str, Direction]] = {"received": "receive", "sent": "transmit"}


class OpenvpnPage:
    """Makes the page from snapshots. Not thread-safe: one scrape at a time.

    `status_path` is the tunnel's name.
    """

    def __init__(self, settings: Metrics) -> None:
        self._fold = PeerFold(settings.max_peers, settings.peer_label)

    def text(self, state: DaemonSnapshot) -> bytes:
        """The page, UTF-8."""
        metrics = {name: Metric(name, text, "gauge") for name, text in _GAUGES.items()}
        metrics |= {name: Metric(name, text, "counter") for name, text in _COUNTERS.items()}
        for tunnel in state.tunnels:
            labels = {"status_path": tunnel.name}
            metrics["openvpn_up"].add_sample("openvpn_up", labels, 1)
            name = "openvpn_status_update_time_seconds"
            metrics[name].add_sample(name, labels, state.now)
            if tunnel.role == "client":
                _add_client(metrics, tunnel)
            else:
                name = "openvpn_server_connected_clients"
                metrics[name].add_sample(name, labels, sum(peer.sessions for peer in tunnel.peers))
        servers = [(tunnel.name, tunnel.peers) for tunnel in state.tunnels if tunnel.role != "client"]
        shown, sums, _ = self._fold.divide(servers)
        groups: list[tuple[tuple[str, str], PeerStatus | Sum]] = [*shown]
        groups += [((tunnel, OTHER), total) for tunnel, total in sums.items()]
        for (tunnel_name, peer_name), peer in groups:
            if peer.connected:
                _add_peer(metrics, tunnel_name, peer_name, peer)
        return render(metric for metric in metrics.values() if metric.samples)


def _add_peer(metrics: dict[str, Metric], tunnel: str, name: str, peer: PeerStatus | Sum) -> None:
    counters = totals_of(peer)
    labels = {"status_path": tunnel, "common_name": name}
    for family, direction in _CLIENT_BYTES.items():
        full = f"openvpn_server_client_{family}_bytes"
        metrics[full].add_sample(f"{full}_total", labels, counters.wire_bytes.get(direction, 0))


def _add_client(metrics: dict[str, Metric], tunnel: TunnelStatus) -> None:
    for name, amount in _client_amounts(tunnel):
        full = f"openvpn_client_{name}_bytes"
        metrics[full].add_sample(f"{full}_total", {"status_path": tunnel.name}, amount)


def _client_amounts(tunnel: TunnelStatus) -> Iterator[tuple[str, int]]:
    frames = {"receive": 0, "transmit": 0}
    wire = {"receive": 0, "transmit": 0}
    for peer in tunnel.peers:
        for (direction, _), amount in peer.counters.bytes.items():
            frames[direction] += amount
        for way, amount in peer.counters.wire_bytes.items():
            wire[way] += amount
    yield "tun_tap_read", frames["transmit"]
    yield "tun_tap_write", frames["receive"]
    yield "tcp_udp_read", wire["receive"]
    yield "tcp_udp_write", wire["transmit"]
    yield "auth_read", frames["receive"]
