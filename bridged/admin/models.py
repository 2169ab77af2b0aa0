"""The API's answers as a client reads them. bridged/runtime/snapshot.py explains the fields.

"Unix seconds" are seconds since 1970-01-01 UTC. Pure: no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, create_model

from bridged.catalogue.counters import FAMILIES


class Answer(BaseModel):
    """Ignores unknown fields: a client may be older than the daemon."""

    model_config = ConfigDict(frozen=True)


class HistogramAnswer(Answer):
    bounds: tuple[float, ...]
    counts: tuple[int, ...] = Field(description="one more than bounds: the last one counts larger values")
    total: float


class CountersAnswer(Answer):
    """Totals that never fall. The direction is `receive` or `transmit`."""

    frames: dict[str, dict[str, int]] = Field(description="direction -> kind of frame -> frames")
    bytes: dict[str, dict[str, int]] = Field(description="direction -> kind -> bytes, without FCS")
    wire_bytes: dict[str, int] = Field(description="direction -> bytes of outer UDP payload")
    wire_datagrams: dict[str, int]
    sequence: dict[str, int] = Field(
        default_factory=dict,
        description="`skipped`: packet ids jumped over; `late`: those that came after all",
    )
    drops: dict[str, dict[str, int]] = Field(description="direction -> reason -> frames or packets")


class PeerAnswer(Answer):
    """One peer name of one tunnel; null means unknown."""

    name: str
    connected: bool
    sessions: int
    endpoint: str | None = Field(description="present address, as host:port")
    cipher: str | None
    tls_version: str | None
    key_group: str | None
    key_derivation: str | None
    wrap: str
    transport: str
    peer_version: str | None
    platform: str | None
    connected_since: float | None = Field(description="Unix seconds")
    last_seen: float | None = Field(description="newest authenticated packet, Unix seconds")
    key_established: float | None = Field(description="when the data key came into use, Unix seconds")
    certificate_not_after: float | None = Field(description="Unix seconds")
    connections: int
    endpoint_changes: int
    disconnects: dict[str, int] = Field(description="reason -> times")
    counters: CountersAnswer
    fdb_entries: int
    packet_id_used_ratio: float
    aead_used_ratio: float
    rtt: float | None = Field(description="seconds")
    path_mtu: int | None = Field(default=None, description="bytes of the largest outer packet, measured")
    remarks: tuple[str, ...] = Field(default=(), description="oddities of the newest session")
    framing: str | None = Field(
        default=None,
        description="compression framing: none, comp-lzo, stub or stub-v2; nothing is compressed",
    )


if TYPE_CHECKING:
    _Families = Answer
else:
    _Families = create_model(
        "_Families",
        __base__=Answer,
        **{
            family.name: (dict[str, int], Field(description=f"{family.label} -> total"))
            for family in FAMILIES
        },
    )


class DataplaneAnswer(_Families):
    dataplane: str = Field(description="portable or native")
    aead: str
    workers: int
    drops: dict[str, dict[str, int]] = Field(description="direction -> reason -> frames or packets")
    fdb_entries: int
    fdb_capacity: int
    offloads: dict[str, bool]
    offload_fallbacks: dict[str, dict[str, int]] = Field(description="offload -> cause -> times")
    queues: dict[str, tuple[int, int]] = Field(description="queue -> (depth, capacity)")
    histograms: dict[str, HistogramAnswer]
    thread_cpu: dict[str, float] = Field(description="thread -> seconds of CPU time")


class RefusedAnswer(Answer):
    endpoint: str
    reason: str = Field(description="a drop reason or a handshake outcome")
    detail: str = Field(description="what the stranger does, and the cure")
    times: int
    last_seen: float = Field(description="Unix seconds")


class TunnelAnswer(Answer):
    name: str
    role: str
    state: str = Field(description="listening, resolving, connecting, connected, waiting or stopped")
    up: bool
    transport: str
    wrap: str
    bridge: str
    tap: str | None
    tap_mac: str | None
    local_endpoint: str | None
    remote: str | None
    peers_limit: int
    peers: tuple[PeerAnswer, ...]
    dataplane: DataplaneAnswer | None
    handshakes: dict[str, dict[str, int]] = Field(description="phase -> outcome -> times")
    handshake_durations: dict[str, HistogramAnswer] = Field(description="phase -> seconds")
    authentications: dict[str, dict[str, int]] = Field(description="method -> outcome -> times")
    renegotiations: dict[str, dict[str, int]] = Field(description="trigger -> outcome -> times")
    control_drops: dict[str, dict[str, int]] = Field(description="direction -> reason -> packets")
    certificates: dict[str, float] = Field(description="own, ca -> end of validity, Unix seconds")
    crl_next_update: float | None = Field(
        default=None, description="end of the revocation list, Unix seconds; null: no list"
    )
    crl_loads: dict[str, int] = Field(
        default_factory=dict, description="`loaded`, `rejected` -> revocation lists read"
    )
    admission: dict[str, int] = Field(
        default_factory=dict, description="server: `waiting`, `running` -> unfinished handshakes now"
    )
    mac_conflicts: dict[str, int]
    coalescing: dict[str, str] = Field(
        default_factory=dict, description="tcp4, tcp6, udp4, udp6 -> `joined`, or why frames are not joined"
    )
    name_conflicts: int = Field(default=0, description="times that two machines used one certificate")
    last_error: str | None
    refused: tuple[RefusedAnswer, ...] = Field(
        default=(), description="strangers refused in the last hour, newest first"
    )


class BridgeAnswer(Answer):
    name: str
    mac: str | None
    mtu: int | None
    adopted: bool = Field(description="it existed before the daemon, and will stay")
    ports: dict[str, bool] = Field(description="port -> whether it has carrier and is in the bridge")
    repairs: dict[str, int]
    missing: tuple[str, ...] = Field(default=(), description="ports that do not exist")
    problem: str | None = Field(default=None, description="why the bridge is not as configured")


class UndoneAnswer(Answer):
    duty: str
    subject: str = Field(description="what it is for: a tunnel, a bridge, an adapter")
    since: float = Field(description="Unix seconds")
    reason: str


class DutiesAnswer(Answer):
    failures: dict[str, int] = Field(default_factory=dict, description="duty -> failures so far")
    undone: tuple[UndoneAnswer, ...] = Field(default=(), description="background work that fails now")


class ReloadsAnswer(Answer):
    counts: dict[str, int] = Field(description="outcome -> times: applied, restarted, rejected")
    outcome: str = Field(description="of the newest reload; `applied` before the first")
    detail: str = Field(description="what was restarted, or why nothing changed")
    succeeded: float = Field(description="time of the start or the newest accepted reload, Unix seconds")


class StatusAnswer(Answer):
    """GET /v1/status: everything at one moment."""

    version: str
    pid: int
    started: float = Field(description="Unix seconds")
    now: float = Field(description="Unix seconds")
    bridges: tuple[BridgeAnswer, ...]
    tunnels: tuple[TunnelAnswer, ...]
    confirm_deadline: float | None = Field(
        description="when an unconfirmed start will be undone, Unix seconds; null: nothing to confirm"
    )
    control_loop_lag: HistogramAnswer | None = Field(description="seconds")
    reload: ReloadsAnswer
    duties: DutiesAnswer = Field(default_factory=DutiesAnswer)
    warnings: dict[str, str] = Field(
        default_factory=dict,
        description="hazard of the host (as in the metric host_warning) -> explanation and cure",
    )


class ConfirmAnswer(Answer):
    """POST /v1/confirm."""

    confirmed: bool = Field(description="false: nothing waited for confirmation")


class ReloadAnswer(Answer):
    """POST /v1/reload."""

    outcome: str = Field(description="applied, restarted or rejected")
    detail: str = Field(description="what was restarted, or why nothing changed")


class KickAnswer(Answer):
    """POST /v1/kick."""

    ended: int = Field(description="sessions")


class RevokeAnswer(Answer):
    """POST /v1/revoke."""

    revoked: int = Field(description="certificates")
    ended: int = Field(description="sessions")


class StationAnswer(Answer):
    address: str
    peer: str | None = Field(description="null: behind the TAP, in this LAN")
    age: float = Field(description="seconds since its last frame; 0 for a static one")
    static: bool = Field(default=False, description="added by an operator: it neither ages nor moves")


class WaitingStationAnswer(Answer):
    """A static station whose peer is not connected."""

    address: str
    peer: str


class FdbAnswer(Answer):
    """GET /v1/fdb: at most STATIONS_MAX stations; `total` counts all of them."""

    tunnel: str
    total: int
    stations: tuple[StationAnswer, ...]
    waiting: tuple[WaitingStationAnswer, ...] = Field(
        default=(), description="static stations that are installed when their peer connects"
    )


class AddStationAnswer(Answer):
    """POST /v1/stations/add."""

    address: str
    peer: str | None = Field(description="null: in this LAN")
    installed: bool = Field(description="false: when the peer connects")


class RemoveStationAnswer(Answer):
    """POST /v1/stations/remove."""

    removed: bool = Field(description="false: there was no such station")


class HealthAnswer(Answer):
    """GET /v1/health: `ok` is true, and the status 200, if everything works; else the status is 503."""

    ok: bool
    tunnels: dict[str, str] = Field(description="tunnel -> state")
    bridges: dict[str, str] = Field(default_factory=dict, description="bridge -> its problem, if it has one")
    undone: dict[str, str] = Field(default_factory=dict, description="background duty -> why it fails")
