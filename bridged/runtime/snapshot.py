"""The daemon's state at one moment, as plain values: what metrics, status and API show."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from bridged.dataplane.contract import DataplaneSnapshot, Histogram, PeerCounters
from bridged.supervision import Undone
from bridged.units import Seconds, UnixSeconds

T = TypeVar("T")

EXPIRY_NOTICE_SECONDS: Final = 30 * 86_400.0
"""Certificates, CAs and revocation lists that expire sooner are reported."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer name of one tunnel, over all its sessions; `endpoint` and the like belong to the newest one.

    `name`: the configured or the authenticated certificate name. Totals continue across reconnections.
    `disconnects` by reason. `remarks`: peculiarities of the newest session. None: not known (yet).
    """

    name: str
    connected: bool
    sessions: int
    endpoint: str | None
    cipher: str | None
    tls_version: str | None
    key_group: str | None
    key_derivation: str | None
    wrap: str
    transport: str
    peer_version: str | None
    platform: str | None
    connected_since: UnixSeconds | None
    last_seen: UnixSeconds | None
    key_established: UnixSeconds | None
    certificate_not_after: UnixSeconds | None
    connections: int
    endpoint_changes: int
    disconnects: Mapping[str, int]
    counters: PeerCounters
    fdb_entries: int = 0
    packet_id_used_ratio: float = 0.0
    aead_used_ratio: float = 0.0
    rtt: Seconds | None = None
    path_mtu: int | None = None
    remarks: tuple[str, ...] = ()
    framing: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedStatus:
    """A peer refused recently. `reason`: a drop reason or handshake outcome; `detail`: what to do."""

    endpoint: str
    reason: str
    detail: str
    times: int
    last_seen: UnixSeconds


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """One tunnel. None: not known (yet)."""

    name: str
    role: str
    state: str
    """A word for people: `listening`, `resolving`, `connecting`, `connected`, `waiting`, `stopped`."""
    up: bool
    transport: str
    wrap: str
    bridge: str
    tap: str | None
    tap_mac: str | None
    local_endpoint: str | None
    remote: str | None
    """The server that a client called last."""
    peers_limit: int
    peers: tuple[PeerStatus, ...]
    dataplane: DataplaneSnapshot | None
    handshakes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By (phase, outcome)."""
    handshake_durations: Mapping[str, Histogram] = field(default_factory=dict)
    """By phase, in seconds."""
    authentications: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By (method, outcome)."""
    renegotiations: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By (trigger, outcome)."""
    control_drops: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By (direction, reason): packets that the control plane refused."""
    certificates: Mapping[str, UnixSeconds] = field(default_factory=dict)
    """Role -> end of validity."""
    crl_next_update: UnixSeconds | None = None
    """End of the revocation list."""
    crl_loads: Mapping[str, int] = field(default_factory=dict)
    """Revocation lists read, by `loaded` and `rejected`; empty without a list."""
    admission: Mapping[str, int] = field(default_factory=dict)
    """Unfinished handshakes of a server now: clients `waiting` for a place, and `running` ones."""
    mac_conflicts: Mapping[str, int] = field(default_factory=dict)
    """By `adapter`, `lan_station`, `local_port`, `peer`."""
    coalescing: Mapping[str, str] = field(default_factory=dict)
    """`tcp4`, `tcp6`, `udp4`, `udp6` -> `joined` or the reason against it. Absent: the data plane or the TAP
    cannot join it, or `coalesce: off`."""
    name_conflicts: int = 0
    """How often two machines with one name met."""
    last_error: str | None = None
    """The newest failure, in one line."""
    refused: tuple[RefusedStatus, ...] = ()
    """Peers refused in the last hour, newest first."""


@dataclass(frozen=True, slots=True)
class BridgeStatus:
    """One bridge. `ports`: name -> it has carrier and belongs to the bridge. `repairs` by action.

    `missing`: ports that do not exist. `problem`: why something is not as configured; None: all is.
    """

    name: str
    mac: str | None
    mtu: int | None
    adopted: bool
    ports: Mapping[str, bool]
    repairs: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ApiCounters:
    """The admin API: answers by (route template, method, status code); seconds taken by route."""

    requests: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    durations: Mapping[str, Histogram] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """Reloads of the configuration: `counts` by outcome, and the newest one's `outcome` and `detail`.

    Outcomes: `applied`, `restarted` (`detail`: what restarted), `rejected` (`detail`: why). `succeeded`: when
    the newest one succeeded, or the start.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    outcome: str = "applied"
    detail: str = ""
    succeeded: UnixSeconds = UnixSeconds(0.0)


@dataclass(frozen=True, slots=True)
class DutiesStatus:
    """Background work: `failures` so far, by duty; `undone`: duties that are not done now, oldest first."""

    failures: Mapping[str, int] = field(default_factory=dict)
    undone: tuple[Undone, ...] = ()


@dataclass(frozen=True, slots=True)
class DaemonSnapshot:
    """Everything. `confirm_deadline`: when an unconfirmed start is undone (None: nothing to confirm)."""

    version: str
    pid: int
    started: UnixSeconds
    now: UnixSeconds
    bridges: tuple[BridgeStatus, ...]
    tunnels: tuple[TunnelStatus, ...]
    confirm_deadline: UnixSeconds | None = None
    control_loop_lag: Histogram | None = None
    reload: ReloadStatus = field(default_factory=ReloadStatus)
    duties: DutiesStatus = field(default_factory=DutiesStatus)
    warnings: Mapping[str, str] = field(default_factory=dict)
    """Kind (`catalogue.counters.HOST_WARNINGS`) -> what is wrong on the host now, and the cure."""


def finish(steps: Generator[None, None, T]) -> T:
    """The result of steps, all of them taken now."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
