"""Every label value that a counter can have. docs/reference/metrics.md is generated from these tables.

A value stands here only if some code counts it: `make lint` looks for that code. No value changes its
meaning. Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

CountSource = Literal["portable", "native", "control"]
"""Who counts: one of the two builds of the data plane, or the control plane."""

DropClass = Literal["auth", "malformed", "policy", "size", "overflow", "io", "no_destination"]

_DATA: Final[frozenset[CountSource]] = frozenset({"portable", "native"})
_CONTROL: Final[frozenset[CountSource]] = frozenset({"control"})
_EVERYWHERE: Final = _DATA | _CONTROL
_NATIVE: Final[frozenset[CountSource]] = frozenset({"native"})


@dataclass(frozen=True, slots=True)
class DropReason:
    """Why frames or packets are dropped. `group` is the class that a peer's drops are summed in."""

    name: str
    group: DropClass
    sources: frozenset[CountSource]
    meaning: str


@dataclass(frozen=True, slots=True)
class CountFamily:
    """Counters of a data plane that are one metric: `bridged_NAME_total` with `label`, beside `tunnel`."""

    name: str
    label: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Count:
    """One counter. `by_threads`: native counts it where frames pass, by `ThreadCells::count`."""

    name: str
    family: str
    sources: frozenset[CountSource]
    meaning: str
    by_threads: bool = True


DROP_REASONS: Final = (
    DropReason(
        "tag_mismatch", "auth", _EVERYWHERE, "The authentication tag is wrong: other key, or altered."
    ),
    DropReason("replay", "auth", _EVERYWHERE, "The packet id was received before."),
    DropReason("replay_too_old", "auth", _EVERYWHERE, "The packet id is older than the replay window."),
    DropReason("reflected", "auth", _EVERYWHERE, "Somebody sent one of our own packets back to us."),
    DropReason("unknown_peer_id", "auth", _DATA, "No peer has this peer id."),
    DropReason("unknown_key_id", "auth", _EVERYWHERE, "The peer has no key with this key id."),
    DropReason("no_key", "auth", _DATA, "The peer's key is gone and the next one is not there yet."),
    DropReason("key_expired", "auth", _DATA, "The key has reached its usage limit."),
    DropReason(
        "wrap_mismatch", "auth", _EVERYWHERE, "tls-auth or tls-crypt fails: the wrapping keys differ."
    ),
    DropReason("wrap_other_kind", "auth", _CONTROL, "The peer uses another `wrap.mode` than this end."),
    DropReason("tls_crypt_v2", "auth", _CONTROL, "The peer uses tls-crypt-v2, which is not offered here."),
    DropReason("wrap_key_refused", "auth", _CONTROL, "The peer's tls-crypt-v2 key is refused, or too old."),
    DropReason("static_key", "auth", _CONTROL, "The peer uses a static key, and this tunnel does not."),
    DropReason("cookie_mismatch", "auth", _EVERYWHERE, "A control packet that belongs to no session here."),
    DropReason("float_refused", "auth", _DATA, "The peer's new endpoint belongs to another peer."),
    DropReason("short_packet", "malformed", _EVERYWHERE, "The packet is too short for its kind."),
    DropReason("bad_opcode", "malformed", _EVERYWHERE, "No packet of this kind is expected here."),
    DropReason(
        "bad_length", "malformed", _EVERYWHERE, "Lengths inside a packet or frame contradict each other."
    ),
    DropReason("short_frame", "malformed", _DATA, "A frame without a whole Ethernet header."),
    DropReason("long_frame", "malformed", _DATA, "A frame larger than the TAP's MTU."),
    DropReason("compressed", "malformed", _DATA, "The peer compressed the frame."),
    DropReason("bad_framing", "malformed", _DATA, "The payload is not framed as both ends agreed."),
    DropReason("bad_fragment", "malformed", _DATA, "A part of a frame that fits no frame."),
    DropReason("fragment_incomplete", "overflow", _DATA, "Parts of a frame did not come, or too many wait."),
    DropReason("occ_length", "malformed", _DATA, "An OCC message that is too long."),
    DropReason("loop_guard", "policy", _DATA, "One of our own frames came back from the LAN."),
    DropReason("mac_limit", "policy", _DATA, "The peer, or the tunnel, has as many stations as it may."),
    DropReason("source_multicast", "policy", _DATA, "The source address is a group address."),
    DropReason("reserved_address", "policy", _DATA, "A link-local group that bridges do not forward."),
    DropReason(
        "housekeeping_magic", "policy", _EVERYWHERE, "The payload looks like a ping or an OCC message."
    ),
    DropReason("not_ready", "policy", _CONTROL, "This end is stopping."),
    DropReason("endpoint_unproven", "policy", _CONTROL, "A new endpoint has to answer before it gets more."),
    DropReason("emsgsize", "size", _DATA, "The kernel refused a datagram as too large for the path."),
    DropReason(
        "too_big", "policy", _DATA, "A packet too large for the path that must not be cut was answered."
    ),
    DropReason("tcp_too_long", "size", _DATA, "A packet longer than its length in a TCP stream can say."),
    DropReason("tap_full", "overflow", _DATA, "The TAP takes no more frames at the moment."),
    DropReason("udp_send_full", "overflow", _DATA, "The socket's send buffer is full."),
    DropReason("tcp_send_full", "overflow", _DATA, "The peer's TCP connection takes no more at the moment."),
    DropReason("control_queue_full", "overflow", _DATA, "Too many control packets wait to be handled."),
    DropReason("event_queue_full", "overflow", _DATA, "Too many events wait to be handled."),
    DropReason("handshake_rate", "overflow", _EVERYWHERE, "Too many hard resets arrive."),
    DropReason("renegotiation_rate", "overflow", _CONTROL, "The peer renegotiates too often."),
    DropReason("source_rate", "overflow", _DATA, "Too many control packets from one source."),
    DropReason("occ_rate", "overflow", _DATA, "The peer sends OCC messages too often."),
    DropReason("peer_limit", "overflow", _CONTROL, "Too many clients wait for their handshake."),
    DropReason("unreachable", "io", _DATA, "The kernel has no route or no address to send from."),
    DropReason("refused", "io", _DATA, "The kernel, or its packet filter, refuses to send."),
    DropReason("tap_down", "io", _DATA, "The TAP is down or gone."),
    DropReason("io_error", "io", _DATA, "Any other error of the TAP or the socket."),
    DropReason("no_peer", "no_destination", _DATA, "No peer to send to."),
)

FAMILIES: Final = (
    CountFamily("fdb_changes", "change", "Changes of the forwarding database."),
    CountFamily("mtu_events", "event", "Actions that make frames fit the path."),
    CountFamily("kernel_drops", "where", "Frames and datagrams that the kernel dropped before us."),
)

COUNTS: Final = (
    Count("learned", "fdb_changes", _DATA, "A station was heard for the first time.", by_threads=False),
    Count("aged", "fdb_changes", _DATA, "A station was silent for too long.", by_threads=False),
    Count("moved", "fdb_changes", _DATA, "A station was heard behind another port.", by_threads=False),
    Count("flushed", "fdb_changes", _DATA, "A station went with its peer.", by_threads=False),
    Count("refused", "fdb_changes", _DATA, "There was no room for a station.", by_threads=False),
    Count("mss_clamped", "mtu_events", _DATA, "The MSS that a SYN segment offers was lowered."),
    Count(
        "mss_fitted",
        "mtu_events",
        _NATIVE,
        "A super-frame was cut into smaller segments than the sender's.",
    ),
    Count(
        "ip_fragment_sent",
        "mtu_events",
        _NATIVE,
        "A datagram larger than the path was sent in fragments.",
    ),
    Count("too_big_answered", "mtu_events", _DATA, "A host was told by ICMP that its packet is too large."),
    Count("ipv4_cut", "mtu_events", _DATA, "An IPv4 packet too large for the path was cut, as routers do."),
    Count("path_mtu_changed", "mtu_events", _NATIVE, "The path to a peer has another MTU than before."),
    Count("tap_txqueue", "kernel_drops", _DATA, "The TAP's queue was full.", by_threads=False),
    Count("udp_receive_buffer", "kernel_drops", _DATA, "The socket's buffer was full.", by_threads=False),
)


def zero_counts(source: CountSource) -> dict[str, dict[str, int]]:
    """The counters of one build, all 0: family -> name -> total."""
    return {
        family.name: {
            count.name: 0 for count in COUNTS if count.family == family.name and source in count.sources
        }
        for family in FAMILIES
    }


DISCONNECT_REASONS: Final = {
    "exit_notify": "The peer said that it leaves.",
    "ping_timeout": "Nothing came from the peer for `keepalive.restart_seconds`.",
    "renegotiation_failed": "No new data key was agreed before the last one expired.",
    "replaced": "A newer session of the same peer took its place.",
    "kicked": "`bridged kick` or `bridged revoke` ended it, or the server sent the client away.",
    "auth_expired": "The peer's certificate is not accepted any more.",
    "transport_closed": "The control channel failed, the connection ended, or there is no route any more.",
    "shutdown": "This end, or this tunnel, stopped.",
}
HANDSHAKE_PHASES: Final = ("initial", "renegotiation")
HANDSHAKE_OUTCOMES: Final = {
    "established": "It succeeded.",
    "timeout": "It was not finished within `handshake_seconds`.",
    "tls_failed": "TLS failed; the log has its text.",
    "certificate_rejected": "One end does not accept the other's certificate.",
    "certificate_expired": "The peer's certificate has ended or begins later.",
    "certificate_revoked": "The peer's certificate is revoked.",
    "crl_expired": "The revocation list has ended; nobody can connect.",
    "name_mismatch": "The peer's certificate has another name than configured.",
    "cipher_mismatch": "The ends have no data cipher in common.",
    "framing_mismatch": "Only one end uses `fragment`, `dev tun`, or a compression framing.",
    "auth_failed": "The server refused the client.",
    "client_refused": "The client is disabled, banned or not known, by `clients` or `bridged ban`.",
    "login_limit": "Too many wrong passwords came from there, or for this name.",
    "push_failed": "The server's options cannot be used, or did not come.",
    "peer_limit": "The server has `peers_max` sessions already.",
    "version_mismatch": "The ends have no TLS version in common.",
    "reset_by_peer": "The peer left before it was finished.",
}
RENEGOTIATION_TRIGGERS: Final = ("time", "bytes", "packets", "aead_limit", "peer")
HOST_WARNINGS: Final = {
    "bridge_netfilter": "The packet filter drops what crosses a bridge.",
    "tunnel_loop": "Two tunnels of a bridge reach each other.",
    "clock_old": "The clock shows a time before this program was made.",
    "kernel_fault": "The running kernel has a fault that tunnels are known to suffer from.",
    "tun_missing": "/dev/net/tun is missing or forbidden, as in a container without it.",
    "wan_gro": "A link that carries tunnels has GRO off.",
    "wan_udp_segmentation": "A link that carries tunnels has UDP segmentation off.",
}
SLOWING_HAZARDS: Final = frozenset({"wan_gro", "wan_udp_segmentation"})
"""Of HOST_WARNINGS: they cost speed only, and a virtual card has offloads off as a rule. No warning."""
MAC_CONFLICTS: Final = ("adapter", "lan_station", "local_port", "peer")
REPAIRS: Final = (
    *("address", "attach", "create", "detach", "inet6", "mac", "mtu", "multicast_router", "queue", "route"),
    *("settings", "up", "vlans"),
)
"""Names of actions on the host's links."""
SEQUENCE_EVENTS: Final = ("skipped", "late")
CRL_OUTCOMES: Final = ("loaded", "rejected")
ADMISSION_STAGES: Final = ("waiting", "running", "connected")
RELOAD_OUTCOMES: Final = ("applied", "rejected", "restarted")
