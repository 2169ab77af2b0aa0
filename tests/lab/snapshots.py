"""Snapshots for the tests of metrics, status and API."""

from __future__ import annotations

from typing import Any

from bridged.addresses import Endpoint
from bridged.admin.documents import status_document
from bridged.admin.models import StatusAnswer
from bridged.catalogue.counters import zero_counts
from bridged.dataplane.contract import DataplaneSnapshot, Histogram, PeerCounters, PeerSnapshot
from bridged.runtime.snapshot import BridgeStatus, DaemonSnapshot, PeerStatus, TunnelStatus
from bridged.units import PeerHandle, UnixSeconds

NOW = UnixSeconds(1_790_000_000.0)


def counters(scale: int = 1) -> PeerCounters:
    return PeerCounters(
        frames={("receive", "unicast"): 10 * scale, ("transmit", "broadcast"): 3 * scale},
        bytes={("receive", "unicast"): 10_000 * scale, ("transmit", "broadcast"): 180 * scale},
        wire_bytes={"receive": 11_000 * scale, "transmit": 300 * scale},
        wire_datagrams={"receive": 12 * scale, "transmit": 4 * scale},
        sequence={"skipped": 3 * scale, "late": scale},
        drops={("receive", "replay"): 2 * scale, ("receive", "tag_mismatch"): scale},
    )


def peer(name: str, **changes: Any) -> PeerStatus:
    values: dict[str, Any] = {
        "name": name,
        "connected": True,
        "sessions": 1,
        "endpoint": "192.0.2.7:40000",
        "cipher": "AES-256-GCM",
        "tls_version": "TLSv1.3",
        "key_group": "X25519MLKEM768",
        "key_derivation": "exporter",
        "wrap": "tls-crypt",
        "transport": "udp",
        "peer_version": "2.6.14",
        "platform": "linux",
        "connected_since": UnixSeconds(NOW - 100),
        "last_seen": UnixSeconds(NOW - 1),
        "key_established": UnixSeconds(NOW - 100),
        "certificate_not_after": UnixSeconds(NOW + 86_400),
        "connections": 1,
        "endpoint_changes": 0,
        "disconnects": {"ping_timeout": 1},
        "counters": counters(),
        "fdb_entries": 2,
        "packet_id_used_ratio": 0.25,
        "aead_used_ratio": 0.5,
    }
    return PeerStatus(**{**values, **changes})


def absent_peer(name: str) -> PeerStatus:
    """A configured peer that never came."""
    unknown = dict.fromkeys(
        (
            "endpoint",
            "cipher",
            "tls_version",
            "key_group",
            "key_derivation",
            "peer_version",
            "platform",
            "connected_since",
            "last_seen",
            "key_established",
            "certificate_not_after",
        )
    )
    return peer(
        name,
        **unknown,
        connected=False,
        sessions=0,
        connections=0,
        disconnects={},
        counters=PeerCounters(),
        fdb_entries=0,
        packet_id_used_ratio=0.0,
        aead_used_ratio=0.0,
    )


def plane() -> DataplaneSnapshot:
    return DataplaneSnapshot(
        dataplane="portable",
        aead="cryptography",
        workers=1,
        peers=(PeerSnapshot(PeerHandle(1), Endpoint("192.0.2.7", 40000), counters()),),
        drops={("receive", "replay"): 2, ("receive", "unknown_peer_id"): 5},
        fdb_entries=4,
        fdb_capacity=100_000,
        counts={
            **zero_counts("native"),
            "fdb_changes": {"learned": 4},
            "mtu_events": {"mss_clamped": 7},
            "kernel_drops": {"udp_receive_buffer": 3},
        },
        offloads={"tap_vnet": True, "udp_gso": True, "udp_gro": False},
        offload_fallbacks={("udp_gro", "einval"): 1},
        queues={"tap_write": (1, 1024)},
        histograms={"segments_per_send": Histogram((1.0, 2.0, 4.0), (5, 0, 2, 1), 20.0)},
        thread_cpu={"control": 1.5, "tap-0": 2.5},
    )


def tunnel(name: str = "sites", *peers: PeerStatus, **changes: Any) -> TunnelStatus:
    values: dict[str, Any] = {
        "name": name,
        "role": "server",
        "state": "listening",
        "up": True,
        "transport": "udp",
        "wrap": "tls-crypt",
        "bridge": "br0",
        "tap": f"tap-{name}",
        "tap_mac": "02:00:5e:10:00:01",
        "local_endpoint": "[::]:1194",
        "remote": None,
        "peers_limit": 1024,
        "peers": peers,
        "dataplane": plane(),
        "handshakes": {("initial", "established"): 1, ("initial", "timeout"): 2},
        "handshake_durations": {"initial": Histogram((0.1, 1.0), (1, 0, 0), 0.05)},
        "authentications": {("certificate", "accepted"): 1},
        "renegotiations": {("time", "established"): 3},
        "control_drops": {("receive", "wrap_mismatch"): 9, ("receive", "replay"): 1},
        "certificates": {"own": UnixSeconds(NOW + 1000), "ca": UnixSeconds(NOW + 2000)},
        "crl_next_update": UnixSeconds(NOW + 3000),
        "crl_loads": {"loaded": 1},
        "admission": {"waiting": 0, "running": 1},
        "mac_conflicts": {"peer": 1},
    }
    return TunnelStatus(**{**values, **changes})


def daemon(*tunnels: TunnelStatus, **changes: Any) -> DaemonSnapshot:
    values: dict[str, Any] = {
        "version": "0.1.0",
        "pid": 4242,
        "started": UnixSeconds(NOW - 7200),
        "now": NOW,
        "bridges": (
            BridgeStatus(
                "br0", "02:00:5e:10:00:02", 1500, False, {"eth1": True, "eth2": False}, {"attach": 1}
            ),
        ),
        "tunnels": tunnels or (tunnel("sites", peer("warehouse"), absent_peer("workshop")),),
        "control_loop_lag": Histogram((0.001, 0.01), (100, 2, 1), 0.2),
    }
    return DaemonSnapshot(**{**values, **changes})


def status_answer(snapshot: DaemonSnapshot) -> StatusAnswer:
    """What a client reads of this snapshot."""
    return StatusAnswer.model_validate(status_document(snapshot))
