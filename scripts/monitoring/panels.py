"""What the three dashboards show: one table, from which Grafana's files and the pictures are made.

Pure: no I/O. `$instance`, `$tunnel` and `$peer` are the dashboards' variables, `$__rate_interval` Grafana's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

PanelKind = Literal["stat", "timeseries", "state-timeline", "table"]

_I: Final = 'instance=~"$instance"'
_T: Final = f'{_I},tunnel=~"$tunnel"'
_P: Final = f'{_T},peer=~"$peer"'
_ONE: Final = ("instance", "peer")
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


def _rates(metric: str, labels: str, *by: str) -> str:
    """The rate of a counter, summed by these labels."""
    return f"sum by ({','.join(by)}) ({_rate(metric, labels)})"


def _in_an_hour(metric: str, labels: str, *by: str) -> str:
    """How often it happened in the hour before, summed by these labels."""
    return f"sum by ({','.join(by)}) (increase({metric}{{{labels}}}[1h]))"


def _bits(labels: str, *by: str) -> str:
    return f"8 * {_rates('bridged_peer_bytes_total', labels, *by)}"


def _mean(histogram: str) -> str:
    total, count = (_rates(f"{histogram}_{part}", _T, "tunnel") for part in ("sum", "count"))
    return f"{total} / clamp_min({count}, 1e-9)"


def _legend(*labels: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def _stat(title: str, expression: str, unit: str = "short", text: str = "", width: int = 4) -> DashboardPanel:
    return DashboardPanel(title, "stat", (Query(expression, title),), unit, width, text)


def _graph(
    title: str, *queries: tuple[str, str], unit: str = "short", text: str = "", width: int = 12
) -> DashboardPanel:
    return DashboardPanel(title, "timeseries", tuple(Query(*query) for query in queries), unit, width, text)


def _graph_by(
    title: str, metric: str, labels: str, *by: str, unit: str, query: Callable[..., str] = _rates
) -> DashboardPanel:
    """A curve for each value of the labels `by`."""
    return _graph(title, (query(metric, labels, *by), _legend(*by)), unit=unit)


def _share(title: str, expression: str, *labels: str, text: str = "") -> DashboardPanel:
    return _graph(title, (expression, _legend(*labels)), unit="percentunit", text=text)


def _traffic(title: str, labels: str, *by: str) -> DashboardPanel:
    return _graph(title, (_bits(labels, *by), _legend(*by)), unit="bps")


def _states(title: str, expression: str, *labels: str) -> DashboardPanel:
    return DashboardPanel(title, "state-timeline", (Query(expression, _legend(*labels)),), "bool", 12)


def _table(title: str, expression: str, width: int = 12) -> DashboardPanel:
    return DashboardPanel(title, "table", (Query(expression),), "short", width)


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
        _traffic("Traffic by appliance", "", "instance"),
        _states("Tunnels", "bridged_tunnel_up", "instance", "tunnel"),
        _table("Alerts that fire", f"ALERTS{{{_OURS}}} or on () vector(0)"),
        _graph(
            "First certificate ends in",
            ("min by (instance) (bridged_certificate_not_after_timestamp_seconds) - time()", "{{instance}}"),
            unit="s",
        ),
        _share(
            "Failed handshakes",
            "max by (instance) (tunnel:bridged_handshake_failures:ratio15m)",
            "instance",
        ),
        _share(
            "Worst packet loss",
            "max by (instance) (tunnel_peer:bridged_loss:ratio5m)",
            "instance",
            text="Of the peer that loses most, on the way to this appliance.",
        ),
        _graph_by("Drops", "bridged_drops_total", "", "instance", unit="pps"),
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
        _traffic("Traffic", _T, "tunnel", "direction"),
        _traffic("Traffic by peer", _T, "peer"),
        _states("Peers", f"bridged_peer_connected{{{_T}}}", "peer"),
        _states("Ports", f"bridged_bridge_port_up{{{_I}}}", "bridge", "port"),
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
            (f"{_rates('bridged_drops_total', _T, 'reason')} > 0 or on () vector(0)", "{{reason}}"),
            unit="pps",
        ),
        _graph_by("Handshakes", "bridged_handshakes_total", _T, "phase", "outcome", unit="cps"),
        _graph(
            "Time of a handshake, 95 %",
            (
                "histogram_quantile(0.95, "
                f"{_in_an_hour('bridged_handshake_duration_seconds_bucket', _T, 'phase', 'le')})",
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
            (_rates("bridged_fdb_changes_total", _T, "change"), "{{change}} a second"),
        ),
        _graph_by("MTU events", "bridged_mtu_events_total", _T, "event", unit="cps"),
        _graph_by("Kernel drops", "bridged_kernel_drops_total", _T, "where", unit="pps"),
        _share("Queues", f"bridged_queue_depth{{{_I}}} / bridged_queue_capacity", "queue"),
        _graph(
            "Datagrams in one call",
            (_mean("bridged_segments_per_send"), "{{tunnel}} sent"),
            (_mean("bridged_datagrams_per_receive"), "{{tunnel}} received"),
        ),
        _graph_by("CPU by thread", "bridged_thread_cpu_seconds_total", _I, "thread", unit="percentunit"),
        _graph(
            "Control loop late, 99 %",
            (
                f"histogram_quantile(0.99, {_rates('bridged_control_loop_lag_seconds_bucket', _I, 'le')})",
                "late by",
            ),
            unit="s",
        ),
        _graph("Memory", (f"process_resident_memory_bytes{{{_I}}}", "{{instance}}"), unit="bytes"),
        _states("Offloads", f"bridged_dataplane_offload_enabled{{{_T}}}", "tunnel", "offload"),
        _graph(
            "Links repaired",
            (_in_an_hour("bridged_netlink_repairs_total", _I, "bridge", "action"), "{{action}}"),
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
        _traffic("Traffic", _P, "direction"),
        _graph_by("Frames by kind", "bridged_peer_frames_total", _P, "direction", "kind", unit="pps"),
        _states("Connection", f"bridged_peer_connected{{{_P}}}", *_ONE),
        _graph("Round-trip time", (f"bridged_peer_rtt_seconds{{{_P}}}", _legend(*_ONE)), unit="s"),
        _share(
            "Packet loss",
            f"tunnel_peer:bridged_loss:ratio5m{{{_P}}}",
            *_ONE,
            text="Packets from the peer that did not arrive.",
        ),
        _share("Flooded share of frames", f"tunnel_peer:bridged_flood_ratio:rate5m{{{_P}}}", *_ONE),
        _graph_by("Drops by class", "bridged_peer_drops_total", _P, "class", "direction", unit="pps"),
        _graph_by(
            "Sessions ended", "bridged_peer_disconnects_total", _P, "reason", unit="short", query=_in_an_hour
        ),
        _graph_by("Outer packets", "bridged_peer_wire_datagrams_total", _P, "direction", unit="pps"),
        _graph(
            "Address changes in an hour",
            (f"increase(bridged_peer_endpoint_changes_total{{{_P}}}[1h])", _legend(*_ONE)),
        ),
        _graph(
            "Age of the data key",
            (f"time() - bridged_peer_key_established_timestamp_seconds{{{_P}}}", _legend(*_ONE)),
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
