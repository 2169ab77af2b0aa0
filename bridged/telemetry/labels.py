"""The fixed label values of the metrics, and the class of every drop reason. Pure: no I/O."""

from __future__ import annotations

from typing import Final

DIRECTIONS: Final = ("receive", "transmit")
FRAME_KINDS: Final = ("unicast", "unknown_unicast", "broadcast", "multicast")
DISCONNECT_REASONS: Final = (
    "exit_notify",
    "ping_timeout",
    "renegotiation_failed",
    "replaced",
    "kicked",
    "auth_expired",
    "transport_closed",
    "shutdown",
)
HANDSHAKE_PHASES: Final = ("initial", "renegotiation")
HANDSHAKE_OUTCOMES: Final = (
    "established",
    "timeout",
    "tls_failed",
    "certificate_rejected",
    "certificate_expired",
    "certificate_revoked",
    "crl_expired",
    "name_mismatch",
    "cipher_mismatch",
    "framing_mismatch",
    "auth_failed",
    "auth_timeout",
    "push_failed",
    "peer_limit",
    "version_mismatch",
    "reset_by_peer",
)
RENEGOTIATION_TRIGGERS: Final = ("time", "bytes", "packets", "aead_limit", "manual", "peer")
FDB_CHANGES: Final = ("learned", "aged", "moved", "flushed", "refused")
HOST_WARNINGS: Final = ("bridge_netfilter", "tunnel_loop")
MAC_CONFLICTS: Final = ("adapter", "lan_station", "local_port", "peer")
MTU_EVENTS: Final = (
    "fragmented",
    "reassembled",
    "reassembly_expired",
    "mss_clamped",
    "mss_fitted",
    "too_big_answered",
    "ip_fragment_sent",
    "path_mtu_changed",
)
RELOAD_OUTCOMES: Final = ("applied", "rejected", "restarted")
OFFLOADS: Final = ("tap_vnet", "tap_tso", "tap_uso", "udp_gso", "udp_gro", "udp_steering", "coalesce")
FALLBACK_CAUSES: Final = ("einval", "eio", "emsgsize", "selftest", "config")
KERNEL_DROP_PLACES: Final = ("tap_txqueue", "udp_receive_buffer")

DROP_REASONS: Final[dict[str, tuple[str, ...]]] = {
    "auth": (
        "tag_mismatch",
        "replay",
        "replay_too_old",
        "unknown_peer_id",
        "unknown_key_id",
        "no_key",
        "key_expired",
        "wrap_mismatch",
        "wrap_other_kind",
        "tls_crypt_v2",
        "static_key",
        "cookie_mismatch",
        "float_refused",
    ),
    "malformed": (
        "short_packet",
        "bad_opcode",
        "bad_length",
        "short_frame",
        "long_frame",
        "occ_length",
        "fragment_invalid",
        "fragment_expired",
        "compressed",
    ),
    "policy": (
        "storm_broadcast",
        "storm_multicast",
        "storm_unknown_unicast",
        "loop_guard",
        "tunnel_in_tunnel",
        "isolation",
        "vlan",
        "mac_limit",
        "mac_spoof",
        "source_multicast",
        "reserved_address",
        "housekeeping_magic",
        "bpdu_guard",
        "dhcp_guard",
        "ra_guard",
        "acl",
        "rate_limit",
        "not_ready",
        "endpoint_unproven",
    ),
    "size": ("too_big", "emsgsize"),
    "overflow": (
        "tap_full",
        "udp_send_full",
        "tcp_peer_queue_full",
        "control_queue_full",
        "event_queue_full",
        "handshake_rate",
        "renegotiation_rate",
        "source_rate",
        "occ_rate",
        "peer_limit",
        "fdb_full",
    ),
    "io": ("unreachable", "refused", "tap_down", "io_error"),
    "no_destination": ("no_peer",),
}
"""Class -> reasons. Reasons may be added; none changes its meaning."""

DROP_CLASSES: Final = tuple(DROP_REASONS)
ALL_DROP_REASONS: Final = tuple(reason for reasons in DROP_REASONS.values() for reason in reasons)
CLASS_OF_REASON: Final = {reason: name for name, reasons in DROP_REASONS.items() for reason in reasons}


def drop_class(reason: str) -> str:
    """The class of a reason. A reason that is not in the table is the peer's: `malformed`."""
    return CLASS_OF_REASON.get(reason, "malformed")
