"""The collector: turns one snapshot of the daemon into the metric families of one scrape."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bridged import __version__
from bridged.catalogue import counters
from bridged.catalogue.figures import OFFLOAD_FALLBACKS
from bridged.configuration.schema import Metrics
from bridged.dataplane.contract import DataplaneSnapshot
from bridged.runtime.snapshot import ApiCounters, DaemonSnapshot, PeerStatus, ReloadStatus, TunnelStatus
from bridged.telemetry import labels
from bridged.telemetry.families import Families
from bridged.telemetry.peer_series import PEER_ROWS, PeerSeries
from bridged.telemetry.peer_totals import OTHER, PeerFold, Sum


class DaemonCollector(Collector):
    """Collects from `snapshot`, called once for each scrape. Scrapes wait for one another.

    `api`: the counters of the admin API, if there is one.
    """

    def __init__(
        self,
        snapshot: Callable[[], DaemonSnapshot],
        settings: Metrics,
        api: Callable[[], ApiCounters] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._api = api
        self._label = settings.peer_label
        self._fold = PeerFold(settings.max_peers, settings.peer_label)
        self._series: dict[tuple[str, str], PeerSeries] = {}
        self._lock = threading.Lock()

    def apply(self, settings: Metrics) -> None:
        """Use other settings from now on. Takes no lock: a running scrape may wait for the caller."""
        if settings.peer_label != self._label:
            self._label = settings.peer_label
            self._fold = PeerFold(settings.max_peers, settings.peer_label)
        self._fold.limit(settings.max_peers)

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: registering must not take a snapshot."""
        return ()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            families = self._families(self._snapshot())
        yield from families.metrics()

    def _families(self, state: DaemonSnapshot) -> Families:
        families = Families()
        families.set("build_info", _build_labels(), 1)
        for bridge in state.bridges:
            for port, is_up in bridge.ports.items():
                families.set("bridge_port_up", (bridge.name, port), is_up)
            families.set("bridge_problem", (bridge.name,), bridge.problem is not None)
            for action in dict.fromkeys((*counters.REPAIRS, *bridge.repairs)):
                families.add("netlink_repairs_total", (bridge.name, action), bridge.repairs.get(action, 0))
        for tunnel in state.tunnels:
            _add_tunnel(families, tunnel)
        self._add_peers(families, state.tunnels)
        _add_reloads(families, state.reload)
        for kind in counters.HOST_WARNINGS:
            families.set("host_warning", (kind,), kind in state.warnings)
        for duty, number in state.duties.failures.items():
            families.add("duty_failures_total", (duty,), number)
        families.set("duties_undone", (), len(state.duties.undone))
        families.set("clock_timestamp_seconds", (), state.now)
        if state.control_loop_lag is not None:
            families.observe("control_loop_lag_seconds", (), state.control_loop_lag)
        if self._api is not None:
            answered = self._api()
            for key, number in answered.requests.items():
                families.add("api_requests_total", key, number)
            for route, durations in answered.durations.items():
                families.observe("api_request_duration_seconds", (route,), durations)
        return families

    def _add_peers(self, families: Families, tunnels: Iterable[TunnelStatus]) -> None:
        shown, sums, folded = self._fold.divide((tunnel.name, tunnel.peers) for tunnel in tunnels)
        lines: dict[str, list[str]] = {name: [] for name in PEER_ROWS}
        kept: dict[tuple[str, str], PeerSeries] = {}
        groups: list[tuple[tuple[str, str], PeerStatus | Sum]] = [
            *shown,
            *(((tunnel, OTHER), total) for tunnel, total in sums.items()),
        ]
        for key, peer in groups:
            series = kept[key] = self._series.get(key) or PeerSeries(*key)
            series.write(lines, peer)
        self._series = kept
        for name, written in lines.items():
            families.set_written(name, written)
        families.set("metrics_peers_folded", (), folded)


def build_registry(collector: DaemonCollector) -> CollectorRegistry:
    """A registry with the collector and the client library's process and Python metrics."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(collector)
    return registry


@cache
def _build_labels() -> tuple[str, str, str, str]:
    from cryptography.hazmat.backends.openssl.backend import backend

    return __version__, "", platform.python_version(), backend.openssl_version_text()


def _add_reloads(families: Families, reload: ReloadStatus) -> None:
    for outcome in counters.RELOAD_OUTCOMES:
        families.add("config_reloads_total", (outcome,), reload.counts.get(outcome, 0))
    families.set("config_last_reload_successful", (), reload.outcome != "rejected")
    families.set("config_last_reload_success_timestamp_seconds", (), reload.succeeded)


def _add_tunnel(families: Families, tunnel: TunnelStatus) -> None:
    name = tunnel.name
    families.set("tunnel_up", (name,), tunnel.up)
    families.set("tunnel_peers", (name,), sum(peer.sessions for peer in tunnel.peers))
    old = sum(peer.sessions for peer in tunnel.peers if peer.cipher is not None and "-CBC" in peer.cipher)
    families.set("tunnel_old_cipher_peers", (name,), old)
    families.set("tunnel_peers_limit", (name,), tunnel.peers_limit)
    info = (name, tunnel.role, tunnel.transport, tunnel.wrap, tunnel.bridge)
    families.set("tunnel_info", info, 1)
    handshakes = _from_zero(tunnel.handshakes, counters.HANDSHAKE_PHASES, (*counters.HANDSHAKE_OUTCOMES,))
    for key, number in handshakes.items():
        families.add("handshakes_total", (name, *key), number)
    for phase, durations in tunnel.handshake_durations.items():
        families.observe("handshake_duration_seconds", (name, phase), durations)
    for key, number in tunnel.authentications.items():
        families.add("authentications_total", (name, *key), number)
    renegotiations = _from_zero(tunnel.renegotiations, counters.RENEGOTIATION_TRIGGERS, ("established",))
    for key, number in renegotiations.items():
        families.add("renegotiations_total", (name, *key), number)
    for role, moment in tunnel.certificates.items():
        families.set("certificate_not_after_timestamp_seconds", (name, role), moment)
    if tunnel.crl_next_update is not None:
        families.set("crl_next_update_timestamp_seconds", (name,), tunnel.crl_next_update)
    if tunnel.crl_next_update is not None or tunnel.crl_loads:
        _add_simple(families, "crl_loads_total", name, tunnel.crl_loads, counters.CRL_OUTCOMES)
    for stage in counters.ADMISSION_STAGES:
        if stage in tunnel.admission:
            families.set("handshakes_unfinished", (name, stage), tunnel.admission[stage])
    families.add("name_conflicts_total", (name,), tunnel.name_conflicts)
    _add_simple(families, "mac_conflicts_total", name, tunnel.mac_conflicts, counters.MAC_CONFLICTS)
    drops = _from_zero(tunnel.control_drops, labels.DIRECTIONS, labels.ALL_DROP_REASONS)
    for key, number in drops.items():
        families.add("drops_total", (name, *key), number)
    if tunnel.dataplane is not None:
        for (direction, reason), number in tunnel.dataplane.drops.items():
            families.add("drops_total", (name, direction, reason), number)
        _add_dataplane(families, name, tunnel.dataplane)


def _add_dataplane(families: Families, name: str, plane: DataplaneSnapshot) -> None:
    families.set("dataplane_info", (plane.dataplane, plane.aead, str(plane.workers)), 1)
    for offload, is_on in plane.offloads.items():
        families.set("dataplane_offload_enabled", (name, offload), is_on)
    fallbacks = {**dict.fromkeys(OFFLOAD_FALLBACKS, 0), **plane.offload_fallbacks}
    for key, number in fallbacks.items():
        families.add("dataplane_offload_fallbacks_total", (name, *key), number)
    families.set("fdb_entries", (name,), plane.fdb_entries)
    families.set("fdb_capacity", (name,), plane.fdb_capacity)
    for family, counts in plane.counts.items():
        _add_simple(families, f"{family}_total", name, counts, ())
    for queue, (depth, capacity) in plane.queues.items():
        families.add("queue_depth", (queue,), depth)
        families.add("queue_capacity", (queue,), capacity)
    for family, histogram in plane.histograms.items():
        families.observe(family, (name,), histogram)
    for thread, seconds in plane.thread_cpu.items():
        families.add("thread_cpu_seconds_total", (thread,), seconds)


def _add_simple(
    families: Families, family: str, tunnel: str, numbers: Mapping[str, int], fixed: tuple[str, ...]
) -> None:
    """Add a family with labels (tunnel, X); the fixed values of X start at 0."""
    for value in dict.fromkeys((*fixed, *numbers)):
        families.add(family, (tunnel, value), numbers.get(value, 0))


def _from_zero(
    numbers: Mapping[tuple[str, str], int], first: tuple[str, ...], second: tuple[str, ...]
) -> dict[tuple[str, str], int]:
    """`numbers` with 0 for every missing pair of fixed values."""
    return {**{(one, other): 0 for one in first for other in second}, **numbers}
