"""The alerting rules, each with what makes it fire and end in the unit test. Pure: no I/O.

An annotation names labels only: the value is in Prometheus, and a text that changes would be sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridged.catalogue.counters import SLOWING_HAZARDS
from scripts.monitoring.model import DAY, HOUR, MINUTE, Alert, Severity, Trial

_NOTICE_DAYS: Final = 30
_URGENT_DAYS: Final = 7
_SLOWING: Final = "|".join(sorted(SLOWING_HAZARDS))
WHERE: Final = {"instance": "INSTANCE", "job": "bridged"}
"""The labels of every series in the trials; `rules.tests_text` gives each alert an instance of its own."""
_TUNNEL: Final = {"tunnel": "sites"}
_PEER: Final = {"tunnel": "sites", "peer": "warehouse"}


def _trial(
    name: str,
    values: str,
    labels: Mapping[str, str],
    fires: int,
    ends: int,
    *,
    also: Mapping[str, str] | None = None,
    by_rule: Mapping[str, str] | None = None,
) -> Trial:
    """One series with these labels, and others (`also`: the whole series -> values).

    `by_rule`: the labels of the alert, where the expression sums.
    """
    series = {_series(name, labels): values, **(also or {})}
    return Trial(series, by_rule if by_rule is not None else {**WHERE, **labels}, fires, ends)


def _series(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in {**labels, **WHERE}.items())
    return f"{name}{{{inside}}}"


def _gauge(name: str, labels: Mapping[str, str], bad: float = 1, good: float = 0) -> Trial:
    """Good for 5 minutes, bad for two hours, then good."""
    values = f"{good}x4 {bad}x119 {good}x300"
    return _trial(name, values, labels, 120, 150)


def _counter(name: str, labels: Mapping[str, str], each_minute: int, *, per: str = "") -> Trial:
    """Rises for two hours, then stays. `per`: the labels that the rule sums by; empty: it keeps all."""
    values = f"0x4 0+{each_minute}x120 {each_minute * 120}x300"
    kept = {key: value for key, value in {**WHERE, **labels}.items() if key in per.split(",")}
    return _trial(name, values, labels, 120, 270, by_rule=kept if per else None)


def _expiry(
    metric: str, labels: Mapping[str, str], days: float, what: str, name: str, severity: Severity
) -> Alert:
    """`metric` ends within 30 or 7 days. In the trial, time begins at the Unix epoch."""
    chosen = ",".join(f'{key}="{value}"' for key, value in labels.items() if key == "role")
    subject = f"{metric}{{{chosen}}}" if chosen else metric
    least = f" >= {_URGENT_DAYS * DAY}" if days == _NOTICE_DAYS else ""
    left = days * DAY - 2 * DAY
    return Alert(
        name,
        f"{subject} - time() < {round(days * DAY)}" + (f" and {subject} - time(){least}" if least else ""),
        HOUR,
        severity,
        f"{what} ends within {days} days",
        _trial(metric, f"{round(left)}x119 {400 * DAY}x300", labels, 110, 150),
    )


def _expiries() -> tuple[Alert, ...]:
    end = "bridged_certificate_not_after_timestamp_seconds"
    peer_end = "bridged_peer_certificate_not_after_timestamp_seconds"
    crl_end = "bridged_crl_next_update_timestamp_seconds"
    own, ca = {**_TUNNEL, "role": "own"}, {**_TUNNEL, "role": "ca"}
    at, of_peer = "{{ $labels.tunnel }} on {{ $labels.instance }}", "{{ $labels.peer }}"
    found = []
    for days, suffix, severity in (
        (_NOTICE_DAYS, "Expiring", "warning"),
        (_URGENT_DAYS, "ExpiringSoon", "critical"),
    ):
        level: Severity = "critical" if severity == "critical" else "warning"
        found += [
            _expiry(end, own, days, f"The certificate of tunnel {at}", f"BridgedCertificate{suffix}", level),
            _expiry(end, ca, days, f"The CA of tunnel {at}", f"BridgedCa{suffix}", level),
            _expiry(crl_end, _TUNNEL, days, f"The revocation list of {at}", f"BridgedCrl{suffix}", level),
            _expiry(
                peer_end,
                _PEER,
                days,
                f"The certificate of peer {of_peer} of {at}",
                f"BridgedPeerCertificate{suffix}",
                level,
            ),
        ]
    return tuple(found)


def _class(group: str, direction: str) -> dict[str, str]:
    return {"instance": WHERE["instance"], **_TUNNEL, "direction": direction, "class": group}


def _drops(reason: str, each_minute: int, group: str, direction: str = "receive") -> Trial:
    values = f"0x4 0+{each_minute}x120 {each_minute * 120}x300"
    labels = {**_TUNNEL, "direction": direction, "reason": reason}
    return _trial("bridged_drops_total", values, labels, 120, 270, by_rule=_class(group, direction))


_FALLBACKS: Final = 'bridged_dataplane_offload_fallbacks_total{cause!="config"}'
_AT: Final = "tunnel {{ $labels.tunnel }} on {{ $labels.instance }}"
_OF: Final = "{{ $labels.peer }} of " + _AT

REACH: Final = (
    Alert(
        "BridgedDown",
        'up{job="bridged"} == 0',
        2 * MINUTE,
        "critical",
        "Prometheus cannot scrape {{ $labels.instance }}",
        _gauge("up", {}, 0, 1),
    ),
    Alert(
        "BridgedTunnelDown",
        "bridged_tunnel_up == 0",
        2 * MINUTE,
        "critical",
        f"Down: {_AT}",
        _gauge("bridged_tunnel_up", _TUNNEL, 0, 1),
    ),
    Alert(
        "BridgedPeerDown",
        "bridged_peer_connected == 0 and bridged_peer_connections_total > 0",
        5 * MINUTE,
        "warning",
        f"Disconnected: peer {_OF}",
        _trial(
            "bridged_peer_connected",
            "1x4 0x119 1x300",
            _PEER,
            120,
            150,
            also={_series("bridged_peer_connections_total", _PEER): "1x124 2x300"},
        ),
    ),
    Alert(
        "BridgedPeerFlapping",
        "increase(bridged_peer_connections_total[30m]) > 4",
        0,
        "warning",
        f"Connects again and again: peer {_OF}",
        _counter("bridged_peer_connections_total", _PEER, 1),
    ),
    Alert(
        "BridgedCertificateShared",
        "increase(bridged_name_conflicts_total[30m]) > 0",
        0,
        "warning",
        f"Two machines use one certificate: {_AT}",
        _counter("bridged_name_conflicts_total", _TUNNEL, 1),
    ),
    Alert(
        "BridgedHandshakesFailing",
        "tunnel:bridged_handshake_failures:ratio15m > 0.5",
        15 * MINUTE,
        "warning",
        f"More than half of all handshakes fail: {_AT}",
        _counter(
            "bridged_handshakes_total",
            {**_TUNNEL, "phase": "initial", "outcome": "timeout"},
            3,
            per="instance,tunnel",
        ),
    ),
    Alert(
        "BridgedAdmissionBusy",
        'bridged_handshakes_unfinished{stage="waiting"} > 100',
        MINUTE,
        "warning",
        f"Over 100 clients wait for their handshake: {_AT}",
        _gauge("bridged_handshakes_unfinished", {**_TUNNEL, "stage": "waiting"}, 500),
    ),
    Alert(
        "BridgedPeersNearLimit",
        "bridged_tunnel_peers > 0.9 * bridged_tunnel_peers_limit and bridged_tunnel_peers_limit > 1",
        10 * MINUTE,
        "warning",
        f"Over 90 % of peers_max are connected: {_AT}",
        _trial(
            "bridged_tunnel_peers",
            "10x4 95x119 10x300",
            _TUNNEL,
            120,
            150,
            also={_series("bridged_tunnel_peers_limit", _TUNNEL): "100x500"},
        ),
    ),
)

LAN: Final = (
    Alert(
        "BridgedTunnelLoop",
        'bridged_host_warning{kind="tunnel_loop"} == 1',
        0,
        "critical",
        "Two tunnels of one bridge reach each other on {{ $labels.instance }}",
        _gauge("bridged_host_warning", {"kind": "tunnel_loop"}),
    ),
    Alert(
        "BridgedFramesReturn",
        'sum by (instance,tunnel) (rate(bridged_drops_total{reason="loop_guard"}[5m])) > 10',
        2 * MINUTE,
        "critical",
        f"Our own frames come back from the LAN, a second path joins the sites: {_AT}",
        _counter(
            "bridged_drops_total",
            {**_TUNNEL, "direction": "transmit", "reason": "loop_guard"},
            1200,
            per="instance,tunnel",
        ),
    ),
    Alert(
        "BridgedStationsFlapping",
        'rate(bridged_fdb_changes_total{change="moved"}[5m]) > 5',
        5 * MINUTE,
        "warning",
        f"Stations move to and fro: {_AT}",
        _counter("bridged_fdb_changes_total", {**_TUNNEL, "change": "moved"}, 600),
    ),
    Alert(
        "BridgedMacConflict",
        "increase(bridged_mac_conflicts_total[15m]) > 0",
        0,
        "warning",
        f"One MAC address in two places: {_AT}",
        _counter("bridged_mac_conflicts_total", {**_TUNNEL, "with": "peer"}, 1),
    ),
    Alert(
        "BridgedFdbNearlyFull",
        "bridged_fdb_entries > 0.8 * bridged_fdb_capacity",
        10 * MINUTE,
        "warning",
        f"Over 80 % of the forwarding database are in use: {_AT}",
        _trial(
            "bridged_fdb_entries",
            "10x4 90x119 10x300",
            _TUNNEL,
            120,
            150,
            also={_series("bridged_fdb_capacity", _TUNNEL): "100x500"},
        ),
    ),
    Alert(
        "BridgedPortDown",
        "bridged_bridge_port_up == 0",
        5 * MINUTE,
        "warning",
        "Port {{ $labels.port }} of bridge {{ $labels.bridge }} on {{ $labels.instance }} is down",
        _gauge("bridged_bridge_port_up", {"bridge": "br0", "port": "eth1"}, 0, 1),
    ),
    Alert(
        "BridgedBridgeWrong",
        "bridged_bridge_problem == 1",
        5 * MINUTE,
        "critical",
        "Bridge {{ $labels.bridge }} on {{ $labels.instance }} is not as configured",
        _gauge("bridged_bridge_problem", {"bridge": "br0"}),
    ),
    Alert(
        "BridgedLinksRepaired",
        "increase(bridged_netlink_repairs_total[1h]) > 3",
        0,
        "warning",
        "Another program changes links of bridge {{ $labels.bridge }} on {{ $labels.instance }}",
        _counter("bridged_netlink_repairs_total", {"bridge": "br0", "action": "attach"}, 1),
    ),
)

TRAFFIC: Final = (
    Alert(
        "BridgedForgedTraffic",
        'tunnel_class:bridged_drops:rate5m{class="auth"} > 50',
        10 * MINUTE,
        "warning",
        f"Over 50 packets a second are not authentic: {_AT}",
        _drops("tag_mismatch", 6000, "auth"),
    ),
    Alert(
        "BridgedMalformedTraffic",
        'tunnel_class:bridged_drops:rate5m{class="malformed"} > 10',
        10 * MINUTE,
        "warning",
        f"Over 10 packets a second are malformed: {_AT}",
        _drops("bad_length", 1200, "malformed"),
    ),
    Alert(
        "BridgedPolicyDrops",
        'tunnel_class:bridged_drops:rate5m{class="policy"} > 100',
        10 * MINUTE,
        "info",
        f"Over 100 frames a second may not pass: {_AT}",
        _drops("mac_limit", 12000, "policy"),
    ),
    Alert(
        "BridgedOverflow",
        'tunnel_class:bridged_drops:rate5m{class="overflow"} > 1',
        5 * MINUTE,
        "warning",
        f"Queues overflow: {_AT}",
        _drops("tap_full", 600, "overflow"),
    ),
    Alert(
        "BridgedKernelOverflow",
        "rate(bridged_kernel_drops_total[5m]) > 1",
        5 * MINUTE,
        "warning",
        f"The kernel drops before us ({{{{ $labels.where }}}}): {_AT}",
        _counter("bridged_kernel_drops_total", {**_TUNNEL, "where": "tap_txqueue"}, 600),
    ),
    Alert(
        "BridgedInputOutputErrors",
        'tunnel_class:bridged_drops:rate5m{class="io"} > 1',
        5 * MINUTE,
        "warning",
        f"Packets cannot be sent or frames cannot be written: {_AT}",
        _drops("unreachable", 600, "io", "transmit"),
    ),
    Alert(
        "BridgedMtuTrouble",
        'tunnel_class:bridged_drops:rate5m{class="size"} > 1',
        10 * MINUTE,
        "warning",
        f"Packets are too large for the path, large transfers may hang: {_AT}",
        _drops("emsgsize", 600, "size", "transmit"),
    ),
    Alert(
        "BridgedFragments",
        'rate(bridged_mtu_events_total{event="ip_fragment_sent"}[5m]) > 10',
        10 * MINUTE,
        "info",
        f"Over 10 packets a second are sent in fragments: {_AT}",
        _counter("bridged_mtu_events_total", {**_TUNNEL, "event": "ip_fragment_sent"}, 1200),
    ),
    Alert(
        "BridgedPacketLoss",
        "tunnel_peer:bridged_loss:ratio5m > 0.02",
        10 * MINUTE,
        "warning",
        f"Over 2 % of the packets from peer {_OF} are lost on the way",
        _trial(
            "bridged_peer_sequence_total",
            "0x4 0+60x120 7200x300",
            {**_PEER, "event": "skipped"},
            120,
            270,
            also={
                _series("bridged_peer_sequence_total", {**_PEER, "event": "late"}): "0x500",
                _series("bridged_peer_wire_datagrams_total", {**_PEER, "direction": "receive"}): "0+600x500",
            },
            by_rule={"instance": WHERE["instance"], **_PEER},
        ),
    ),
    Alert(
        "BridgedSlowPath",
        'bridged_dataplane_offload_enabled{offload=~"udp_gso|tap_vnet"} == 0',
        30 * MINUTE,
        "info",
        f"Works without offload {{{{ $labels.offload }}}}: {_AT}",
        _gauge("bridged_dataplane_offload_enabled", {**_TUNNEL, "offload": "udp_gso"}, 0, 1),
    ),
    Alert(
        "BridgedOffloadFallback",
        # The second half: what was given up before the first scrape is never an increase.
        f"increase({_FALLBACKS}[1h]) > 0 or ({_FALLBACKS} > 0 unless {_FALLBACKS} offset 1h)",
        0,
        "warning",
        f"Offload {{{{ $labels.offload }}}} was switched off ({{{{ $labels.cause }}}}): {_AT}",
        _counter(
            "bridged_dataplane_offload_fallbacks_total",
            {**_TUNNEL, "offload": "udp_gso", "cause": "eio"},
            1,
        ),
    ),
    Alert(
        "BridgedKeyExhausting",
        "bridged_peer_packet_id_used_ratio > 0.9 or bridged_peer_aead_used_ratio > 0.9",
        MINUTE,
        "critical",
        f"The data key is used up and was not replaced: peer {_OF}",
        _gauge("bridged_peer_packet_id_used_ratio", _PEER, 0.95, 0.1),
    ),
)

OPERATION: Final = (
    Alert(
        "BridgedCrlRejected",
        'increase(bridged_crl_loads_total{outcome="rejected"}[1h]) > 0',
        0,
        "warning",
        f"A new revocation list cannot be used, the previous one stays: {_AT}",
        _counter("bridged_crl_loads_total", {**_TUNNEL, "outcome": "rejected"}, 1),
    ),
    Alert(
        "BridgedReloadFailed",
        "bridged_config_last_reload_successful == 0",
        5 * MINUTE,
        "warning",
        "The newest reload on {{ $labels.instance }} was rejected",
        _gauge("bridged_config_last_reload_successful", {}, 0, 1),
    ),
    Alert(
        "BridgedClockWrong",
        "abs(bridged_clock_timestamp_seconds - timestamp(bridged_clock_timestamp_seconds)) > 60",
        2 * MINUTE,
        "warning",
        "The clock of {{ $labels.instance }} differs from Prometheus' by over a minute",
        _trial("bridged_clock_timestamp_seconds", "0+60x4 9000+60x119 7500+60x300", {}, 120, 150),
    ),
    Alert(
        "BridgedHostWarning",
        f'bridged_host_warning{{kind!~"tunnel_loop|{_SLOWING}"}} == 1',
        5 * MINUTE,
        "warning",
        "Host {{ $labels.instance }} has the hazard {{ $labels.kind }}",
        _gauge("bridged_host_warning", {"kind": "bridge_netfilter"}),
    ),
    Alert(
        "BridgedWanOffloads",
        f'bridged_host_warning{{kind=~"{_SLOWING}"}} == 1',
        30 * MINUTE,
        "info",
        "The WAN interface of {{ $labels.instance }} works packet by packet ({{ $labels.kind }})",
        _gauge("bridged_host_warning", {"kind": "wan_gro"}),
    ),
    Alert(
        "BridgedDutyUndone",
        "bridged_duties_undone > 0",
        5 * MINUTE,
        "warning",
        "Background work fails on {{ $labels.instance }}",
        _gauge("bridged_duties_undone", {}),
    ),
    Alert(
        "BridgedControlLoopSlow",
        "histogram_quantile(0.99, rate(bridged_control_loop_lag_seconds_bucket[5m])) > 0.2",
        10 * MINUTE,
        "warning",
        "The control loop of {{ $labels.instance }} wakes up late",
        _trial(
            "bridged_control_loop_lag_seconds_bucket",
            "0+100x500",
            {"le": "0.1"},
            120,
            270,
            also={
                _series(
                    "bridged_control_loop_lag_seconds_bucket", {"le": bound}
                ): "0+100x4 500+200x119 24300+100x300"
                for bound in ("0.5", "+Inf")
            },
            by_rule=WHERE,
        ),
    ),
    Alert(
        "BridgedPeersFolded",
        "bridged_metrics_peers_folded > 0",
        HOUR,
        "info",
        "Peers on {{ $labels.instance }} have no series of their own: raise metrics.max_peers",
        _gauge("bridged_metrics_peers_folded", {}, 20),
    ),
)

GROUPS: Final[Mapping[str, tuple[Alert, ...]]] = {
    "bridged-reach": REACH,
    "bridged-lan": LAN,
    "bridged-traffic": TRAFFIC,
    "bridged-expiry": _expiries(),
    "bridged-operation": OPERATION,
}
ALERTS: Final = tuple(alert for alerts in GROUPS.values() for alert in alerts)
