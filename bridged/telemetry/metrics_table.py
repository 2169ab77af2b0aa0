"""All metrics: name, type, labels, help. The reference page is generated from this table.

Dashboards and rules rely on names and meanings: a name never changes its meaning. Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bridged.catalogue.counters import FAMILIES, HOST_WARNINGS
from bridged.catalogue.figures import BATCHES

PREFIX: Final = "bridged_"

MetricType = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric family. `name` has no prefix; counters include `_total`."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    help: str

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


_T: Final = ("tunnel",)
_TP: Final = ("tunnel", "peer")


def _counter(name: str, labels: tuple[str, ...], text: str) -> MetricRow:
    return MetricRow(name, "counter", labels, text)


def _gauge(name: str, labels: tuple[str, ...], text: str) -> MetricRow:
    return MetricRow(name, "gauge", labels, text)


def _histogram(name: str, labels: tuple[str, ...], text: str) -> MetricRow:
    return MetricRow(name, "histogram", labels, text)


METRICS: Final[tuple[MetricRow, ...]] = (
    _gauge("build_info", ("version", "revision", "python", "openssl"), "Versions of the program; always 1."),
    _gauge("dataplane_info", ("dataplane", "aead", "workers"), "Data planes in use; always 1."),
    _gauge("dataplane_offload_enabled", (*_T, "offload"), "Whether an offload is in use."),
    _counter(
        "dataplane_offload_fallbacks_total",
        (*_T, "offload", "cause"),
        "Times an offload was switched off, by cause (`config`: a rule for this kernel).",
    ),
    _gauge("tunnel_up", _T, "Whether the tunnel works: a server listens, a client is connected."),
    _gauge("tunnel_peers", _T, "Sessions established now."),
    _gauge(
        "tunnel_old_cipher_peers", _T, "Sessions established now with a CBC cipher, for peers without AEAD."
    ),
    _gauge("tunnel_peers_limit", _T, "Sessions allowed at once."),
    _gauge("tunnel_info", (*_T, "role", "transport", "wrap", "bridge"), "Settings of the tunnel; always 1."),
    _gauge("bridge_port_up", ("bridge", "port"), "Whether a port has carrier and is in the bridge."),
    _counter(
        "netlink_repairs_total", ("bridge", "action"), "Links repaired after another program changed them."
    ),
    _gauge("peer_connected", _TP, "Whether the peer has an established session."),
    _gauge("peer_sessions", _TP, "Established sessions under the peer's name."),
    _gauge(
        "peer_info",
        (*_TP, "cipher", "tls_version", "key_group", "wrap", "transport", "peer_version", "platform"),
        "What was negotiated with the peer; always 1, absent before its first session.",
    ),
    _gauge(
        "peer_last_seen_timestamp_seconds",
        _TP,
        "Newest authenticated packet, Unix time; absent before the first.",
    ),
    _gauge(
        "peer_connected_since_timestamp_seconds",
        _TP,
        "Begin of the present session, Unix time; absent without a session.",
    ),
    _counter("peer_connections_total", _TP, "Sessions established."),
    _counter(
        "peer_endpoint_changes_total", _TP, "Times that the peer's address changed in a session (float)."
    ),
    _counter("peer_disconnects_total", (*_TP, "reason"), "Sessions ended, by reason."),
    _gauge("peer_rtt_seconds", _TP, "Round-trip time on the control channel; absent while unknown."),
    _gauge(
        "peer_path_mtu_bytes",
        _TP,
        "Largest outer packet that crosses, as `mtu: auto` measured it; absent if unknown.",
    ),
    _counter("handshakes_total", (*_T, "phase", "outcome"), "Handshakes that ended, by outcome."),
    _histogram("handshake_duration_seconds", (*_T, "phase"), "Duration of successful handshakes."),
    _counter("authentications_total", (*_T, "method", "outcome"), "Authentications by method and outcome."),
    _counter("peer_frames_total", (*_TP, "direction", "kind"), "Ethernet frames carried."),
    _counter(
        "peer_bytes_total", (*_TP, "direction", "kind"), "Bytes of those frames, without FCS and overhead."
    ),
    _counter("peer_wire_bytes_total", (*_TP, "direction"), "Bytes of outer UDP payload."),
    _counter("peer_wire_datagrams_total", (*_TP, "direction"), "Outer datagrams."),
    _counter(
        "peer_sequence_total",
        (*_TP, "event"),
        "Packet ids of the peer that were jumped over (skipped), and packets that came after all (late); "
        "skipped minus late were lost on the path.",
    ),
    _counter("drops_total", (*_T, "direction", "reason"), "Frames and packets dropped, by reason."),
    _counter("peer_drops_total", (*_TP, "direction", "class"), "Drops of the peer, by class of reason."),
    _gauge(
        "peer_key_established_timestamp_seconds", _TP, "When the present data key came into use, Unix time."
    ),
    _counter("renegotiations_total", (*_T, "trigger", "outcome"), "Renegotiations by trigger and outcome."),
    _gauge("peer_packet_id_used_ratio", _TP, "Used share of the packet ids, worse direction, 0..1."),
    _gauge("peer_aead_used_ratio", _TP, "Used share of the cipher's usage limit, worse direction, 0..1."),
    _gauge("fdb_entries", _T, "Addresses in the forwarding database."),
    _gauge("fdb_capacity", _T, "Addresses that the forwarding database can hold."),
    _gauge("peer_fdb_entries", _TP, "Addresses learned at the peer."),
    *(_counter(f"{family.name}_total", (*_T, family.label), family.meaning) for family in FAMILIES),
    _counter("mac_conflicts_total", (*_T, "with"), "One address in two places, by what it conflicts with."),
    _counter("name_conflicts_total", _T, "Sessions ended by another machine that uses the same certificate."),
    _gauge("queue_depth", ("queue",), "Entries waiting in a queue of the data plane."),
    _gauge("queue_capacity", ("queue",), "Entries that a queue can hold; a full queue drops."),
    *(_histogram(batch.name, _T, batch.meaning) for batch in BATCHES),
    _counter("thread_cpu_seconds_total", ("thread",), "CPU time by thread."),
    _histogram("control_loop_lag_seconds", (), "How late the event loop woke up."),
    _gauge("certificate_not_after_timestamp_seconds", (*_T, "role"), "End of validity of our certificates."),
    _gauge("peer_certificate_not_after_timestamp_seconds", _TP, "End of validity of the peer's certificate."),
    _gauge(
        "crl_next_update_timestamp_seconds",
        _T,
        "End of the revocation list, Unix time: nobody can connect afterwards; absent without a list.",
    ),
    _counter(
        "crl_loads_total",
        (*_T, "outcome"),
        "Revocation lists read: loaded, or rejected (the previous one stays in use); absent without a list.",
    ),
    _gauge(
        "handshakes_unfinished",
        (*_T, "stage"),
        "Clients of a server in a handshake: waiting for a place, or running.",
    ),
    _gauge(
        "clock_timestamp_seconds",
        (),
        "This host's clock, Unix time; Prometheus compares it with its own.",
    ),
    _counter(
        "config_reloads_total",
        ("outcome",),
        "Reloads: applied, restarted (a tunnel or bridge had to restart), or rejected (nothing changed).",
    ),
    _gauge("config_last_reload_successful", (), "0 if the newest reload was rejected, else 1."),
    _gauge(
        "config_last_reload_success_timestamp_seconds",
        (),
        "Time of the start or of the newest accepted reload, Unix time.",
    ),
    _gauge(
        "host_warning",
        ("kind",),
        f"1 if the host has this hazard: {', '.join(HOST_WARNINGS)}; `bridged status` says what to do.",
    ),
    _counter("duty_failures_total", ("duty",), "Failures of background work, by duty."),
    _gauge("duties_undone", (), "Background duties that fail now; `bridged status` names them."),
    _gauge("bridge_problem", ("bridge",), "1 if the bridge is not as configured."),
    _counter("api_requests_total", ("route", "method", "code"), "Answers of the admin API."),
    _histogram("api_request_duration_seconds", ("route",), "Duration of the admin API's answers."),
    _gauge("metrics_peers_folded", (), 'Peers without their own series, summed in peer="_other".'),
)

ROWS: Final = {row.name: row for row in METRICS}

EXTERNAL_FAMILIES: Final = (
    ("process_*", "CPU, memory, descriptors and start time of the process (client library)."),
    ("python_*", "Python version and garbage collection (client library)."),
)
