"""What the three dashboards show: one table, from which Grafana's files and the pictures are made.

Pure: no I/O. `$instance`, `$tunnel` and `$peer` are the dashboards' variables, `$__rate_interval` Grafana's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PanelKind = Literal["stat", "timeseries", "state-timeline", "table"]

_I: Final = 'instance=~"$instance"'
_T: Final = f'{_I},tunnel=~"$tunnel"'
_P: Final = f'{_T},peer=~"$peer"'
_OURS: Final = 'alertname=~"Bridged.*",alertstate="firing"'


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel. `legend` names its series, in Grafana's notation."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class DashboardPanel:
    """One panel. `unit` is a unit of Grafana; `width` counts 24ths of the page."""

    title: str
    kind: PanelKind
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 12
    text: str = ""


@dataclass(frozen=True, slots=True)
class DashboardPage:
    """One dashboard. `variables`: those it has, in order."""

    uid: str
    title: str
    text: str
    variables: tuple[str, ...]
    panels: tuple[DashboardPanel, ...]


def _rate(metric: str, labels: str) -> str:
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def _mean(histogram: str) -> str:
    total, count = _rate(f"{histogram}_sum", _T), _rate(f"{histogram}_count", _T)
    return f"sum by (tunnel) ({total}) / clamp_min(sum by (tunnel) ({count}), 1e-9)"


def _stat(title: str, expression: str, unit: str = "short", text: str = "", width: int = 4) -> DashboardPanel:
    return DashboardPanel(title, "stat", (Query(expression, title),), unit, width, text)


def _graph(
    title: str, *queries: tuple[str, str], unit: str = "short", text: str = "", width: int = 12
) -> DashboardPanel:
    return DashboardPanel(title, "timeseries", tuple(Query(*query) for query in queries), unit, width, text)


def _states(title: str, expression: str, legend: str, width: int = 12) -> DashboardPanel:
    return DashboardPanel(title, "state-timeline", (Query(expression, legend),), "bool", width)


def _table(title: str, expression: str, width: int = 12) -> DashboardPanel:
    return DashboardPanel(title, "table", (Query(expression),), "short", width)


_LAG: Final = _rate("bridged_control_loop_lag_seconds_bucket", _I)

_FLEET: Final = DashboardPage(
    "bridged-fleet",
    "bridged: fleet",
    "All appliances at a glance.",
    (),
    (
        _stat("Appliances up", 'sum(up{job="bridged"})'),
        _stat("Tunnels up", "sum(bridged_tunnel_up)"),
        _stat("Tunnels down", "count(bridged_tunnel_up == 0) or vector(0)"),
        _stat("Peers connected", "sum(bridged_peer_connected)"),
        _stat(
            "Peers gone",
            "count(bridged_peer_connected == 0 and bridged_peer_connections_total > 0) or vector(0)",
            text="They were connected, and are not now.",
        ),
        _stat("Alerts", f"count(ALERTS{{{_OURS}}}) or vector(0)"),
        _graph(
            "Traffic by appliance",
            ("8 * sum by (instance) (" + _rate("bridged_peer_bytes_total", "") + ")", "{{instance}}"),
            unit="bps",
        ),
        _states("Tunnels", "bridged_tunnel_up", "{{instance}} {{tunnel}}"),
        _table("Alerts that fire", f"ALERTS{{{_OURS}}} or on () vector(0)"),
        _graph(
            "First certificate ends in",
            ("min by (instance) (bridged_certificate_not_after_timestamp_seconds) - time()", "{{instance}}"),
            unit="s",
        ),
        _graph(
            "Failed handshakes",
            ("max by (instance) (tunnel:bridged_handshake_failures:ratio15m)", "{{instance}}"),
            unit="percentunit",
        ),
        _graph(
            "Worst packet loss",
            ("max by (instance) (tunnel_peer:bridged_loss:ratio5m)", "{{instance}}"),
            unit="percentunit",
            text="Of the peer that loses most, on the way to this appliance.",
        ),
        _graph(
            "Drops",
            ("sum by (instance) (" + _rate("bridged_drops_total", "") + ")", "{{instance}}"),
            unit="pps",
        ),
        _graph(
            "CPU seconds for a gigabyte",
            ("instance:bridged_cpu_seconds_per_gigabyte:5m", "{{instance}}"),
            unit="s",
        ),
        _table("Versions", "bridged_build_info", width=24),
    ),
)

_APPLIANCE: Final = DashboardPage(
    "bridged-appliance",
    "bridged: one appliance",
    "Tunnels, bridges and host of one appliance.",
    ("instance", "tunnel"),
    (
        _stat("Tunnels up", f"sum(bridged_tunnel_up{{{_T}}})"),
        _stat("Sessions", f"sum(bridged_tunnel_peers{{{_T}}})"),
        _stat("Stations in use", f"sum(bridged_fdb_entries{{{_T}}})"),
        _stat("Reload accepted", f"min(bridged_config_last_reload_successful{{{_I}}})", "bool"),
        _stat("Host hazards", f"sum(bridged_host_warning{{{_I}}})"),
        _stat("Work undone", f"sum(bridged_duties_undone{{{_I}}})"),
        _graph(
            "Traffic",
            (
                f"8 * sum by (tunnel,direction) ({_rate('bridged_peer_bytes_total', _T)})",
                "{{tunnel}} {{direction}}",
            ),
            unit="bps",
        ),
        _graph(
            "Traffic by peer",
            (f"8 * sum by (peer) ({_rate('bridged_peer_bytes_total', _T)})", "{{peer}}"),
            unit="bps",
        ),
        _states("Peers", f"bridged_peer_connected{{{_T}}}", "{{peer}}"),
        _states("Ports", f"bridged_bridge_port_up{{{_I}}}", "{{bridge}} {{port}}"),
        _graph(
            "Drops by class",
            (
                f"sum by (class,direction) (tunnel_class:bridged_drops:rate5m{{{_T}}})",
                "{{class}} {{direction}}",
            ),
            unit="pps",
        ),
        _graph(
            "Drops by reason",
            (f"sum by (reason) ({_rate('bridged_drops_total', _T)}) > 0 or on () vector(0)", "{{reason}}"),
            unit="pps",
        ),
        _graph(
            "Handshakes",
            (f"sum by (phase,outcome) ({_rate('bridged_handshakes_total', _T)})", "{{phase}} {{outcome}}"),
            unit="cps",
        ),
        _graph(
            "Time of a handshake, 95 %",
            (
                "histogram_quantile(0.95, sum by (phase,le) "
                f"(increase(bridged_handshake_duration_seconds_bucket{{{_T}}}[1h])))",
                "{{phase}}",
            ),
            unit="s",
        ),
        _graph(
            "Unfinished handshakes",
            (f"sum by (tunnel,stage) (bridged_handshakes_unfinished{{{_T}}})", "{{tunnel}} {{stage}}"),
        ),
        _graph(
            "Stations",
            (f"bridged_fdb_entries{{{_T}}}", "{{tunnel}}"),
            (f"sum by (change) ({_rate('bridged_fdb_changes_total', _T)})", "{{change}} a second"),
        ),
        _graph(
            "MTU events",
            (f"sum by (event) ({_rate('bridged_mtu_events_total', _T)})", "{{event}}"),
            unit="cps",
        ),
        _graph(
            "Kernel drops",
            (f"sum by (where) ({_rate('bridged_kernel_drops_total', _T)})", "{{where}}"),
            unit="pps",
        ),
        _graph(
            "Queues",
            (f"bridged_queue_depth{{{_I}}} / bridged_queue_capacity", "{{queue}}"),
            unit="percentunit",
        ),
        _graph(
            "Datagrams in one call",
            (_mean("bridged_segments_per_send"), "{{tunnel}} sent"),
            (_mean("bridged_datagrams_per_receive"), "{{tunnel}} received"),
        ),
        _graph(
            "CPU by thread",
            (f"sum by (thread) ({_rate('bridged_thread_cpu_seconds_total', _I)})", "{{thread}}"),
            unit="percentunit",
        ),
        _graph(
            "Control loop late, 99 %",
            (f"histogram_quantile(0.99, sum by (le) ({_LAG}))", "late by"),
            unit="s",
        ),
        _graph("Memory", (f"process_resident_memory_bytes{{{_I}}}", "{{instance}}"), unit="bytes"),
        _states("Offloads", f"bridged_dataplane_offload_enabled{{{_T}}}", "{{tunnel}} {{offload}}"),
        _graph(
            "Links repaired",
            (f"sum by (bridge,action) (increase(bridged_netlink_repairs_total{{{_I}}}[1h]))", "{{action}}"),
        ),
        _graph(
            "Ends in",
            (f"bridged_certificate_not_after_timestamp_seconds{{{_T}}} - time()", "{{tunnel}} {{role}}"),
            (f"bridged_crl_next_update_timestamp_seconds{{{_T}}} - time()", "{{tunnel}} CRL"),
            unit="s",
        ),
    ),
)

_PEER: Final = DashboardPage(
    "bridged-peer",
    "bridged: one peer",
    "One site, as one appliance sees it.",
    ("instance", "tunnel", "peer"),
    (
        _stat("Connected", f"max(bridged_peer_connected{{{_P}}})", "bool"),
        _stat("Seen", f"time() - max(bridged_peer_last_seen_timestamp_seconds{{{_P}}})", "s", "Before now."),
        _stat("Round trip", f"max(bridged_peer_rtt_seconds{{{_P}}})", "s"),
        _stat("Stations", f"sum(bridged_peer_fdb_entries{{{_P}}})"),
        _stat("Connections", f"sum(bridged_peer_connections_total{{{_P}}})"),
        _stat(
            "Certificate ends in",
            f"min(bridged_peer_certificate_not_after_timestamp_seconds{{{_P}}}) - time()",
            "s",
        ),
        _graph(
            "Traffic",
            (f"8 * sum by (direction) ({_rate('bridged_peer_bytes_total', _P)})", "{{direction}}"),
            unit="bps",
        ),
        _graph(
            "Frames by kind",
            (
                f"sum by (direction,kind) ({_rate('bridged_peer_frames_total', _P)})",
                "{{direction}} {{kind}}",
            ),
            unit="pps",
        ),
        _states("Connection", f"bridged_peer_connected{{{_P}}}", "{{instance}} {{peer}}"),
        _graph("Round-trip time", (f"bridged_peer_rtt_seconds{{{_P}}}", "{{instance}} {{peer}}"), unit="s"),
        _graph(
            "Packet loss",
            (f"tunnel_peer:bridged_loss:ratio5m{{{_P}}}", "{{instance}} {{peer}}"),
            unit="percentunit",
            text="Packets from the peer that did not arrive.",
        ),
        _graph(
            "Flooded share of frames",
            (f"tunnel_peer:bridged_flood_ratio:rate5m{{{_P}}}", "{{instance}} {{peer}}"),
            unit="percentunit",
        ),
        _graph(
            "Drops by class",
            (
                f"sum by (class,direction) ({_rate('bridged_peer_drops_total', _P)})",
                "{{class}} {{direction}}",
            ),
            unit="pps",
        ),
        _graph(
            "Sessions ended",
            (f"sum by (reason) (increase(bridged_peer_disconnects_total{{{_P}}}[1h]))", "{{reason}}"),
        ),
        _graph(
            "Outer packets",
            (f"sum by (direction) ({_rate('bridged_peer_wire_datagrams_total', _P)})", "{{direction}}"),
            unit="pps",
        ),
        _graph(
            "Address changes in an hour",
            (f"increase(bridged_peer_endpoint_changes_total{{{_P}}}[1h])", "{{instance}} {{peer}}"),
        ),
        _graph(
            "Age of the data key",
            (f"time() - bridged_peer_key_established_timestamp_seconds{{{_P}}}", "{{instance}} {{peer}}"),
            unit="s",
        ),
        _graph(
            "Used share of the data key",
            (f"bridged_peer_packet_id_used_ratio{{{_P}}}", "packet ids {{peer}}"),
            (f"bridged_peer_aead_used_ratio{{{_P}}}", "AEAD {{peer}}"),
            unit="percentunit",
        ),
        _table("Negotiated", f"bridged_peer_info{{{_P}}}", width=24),
    ),
)

PAGES: Final = (_FLEET, _APPLIANCE, _PEER)
