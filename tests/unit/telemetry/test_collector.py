"""One snapshot, one scrape: what Prometheus' own parser reads from it."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridged.catalogue.counters import DISCONNECT_REASONS, HANDSHAKE_OUTCOMES
from bridged.catalogue.figures import OFFLOAD_FALLBACKS
from bridged.configuration.schema import Metrics
from bridged.dataplane.contract import Histogram
from bridged.runtime.snapshot import ApiCounters, DaemonSnapshot, DutiesStatus
from bridged.telemetry.collector import DaemonCollector, build_registry
from bridged.telemetry.exposition import render
from bridged.telemetry.labels import ALL_DROP_REASONS, DROP_CLASSES
from bridged.telemetry.metrics_table import METRICS, ROWS
from tests.lab.bounds import at_most_or
from tests.lab.references import writing
from tests.lab.snapshots import NOW, absent_peer, counters, daemon, peer, plane, tunnel

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scraper:
    """A collector whose snapshot the test changes between scrapes."""

    def __init__(self, state: DaemonSnapshot, **settings: Any) -> None:
        self.state = state
        self.collector = DaemonCollector(lambda: self.state, Metrics(**settings))

    def text(self) -> str:
        return render(self.collector.collect()).decode()

    def series(self) -> Series:
        found: Series = {}
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found, f"series stands twice: {key}"
                found[key] = sample.value
        return found


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((f"bridged_{name}", frozenset(labels.items())))


def labels_of(series: Series, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for found, labels in series if found == f"bridged_{name}"}


def test_names_types_and_labels_are_those_of_the_table() -> None:
    scraper = Scraper(daemon())
    scraper.collector._api = lambda: ApiCounters(
        {("/v1/status", "GET", "200"): 3}, {"/v1/status": Histogram((0.1,), (3, 0), 0.01)}
    )
    state = replace(
        daemon(),
        duties=DutiesStatus({"tap": 1}),
        tunnels=(tunnel("sites", peer("a", rtt=0.02, path_mtu=1420), dataplane=full_plane()),),
    )
    scraper.state = state
    seen = {}
    for family in text_string_to_metric_families(scraper.text()):
        for sample in family.samples:
            name = sample.name
            if family.type == "histogram":
                name = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
            row = ROWS[name.removeprefix("bridged_")]
            seen[row.name] = row
            assert family.type == row.type
            assert family.documentation == row.help
            assert set(sample.labels) - {"le"} == set(row.labels)
    assert set(seen) == set(ROWS), "a row of the table that nothing produces"


def full_plane() -> Any:
    histogram = Histogram((1.0, 2.0), (1, 1, 0), 3.0)
    names = ("segments_per_send", "datagrams_per_receive", "frames_per_tap_write")
    return replace(plane(), histograms=dict.fromkeys(names, histogram))


def test_the_table_obeys_the_naming_rules() -> None:
    for row in METRICS:
        assert row.name.endswith("_total") == (row.type == "counter")
        assert row.help.endswith(".")
        assert not any(unit in row.name for unit in ("_ms", "_kb", "percent", "_ago"))
    assert len(ROWS) == len(METRICS)


def test_values_of_the_snapshot_arrive() -> None:
    series = Scraper(daemon()).series()
    assert (
        value(
            series, "peer_frames_total", tunnel="sites", peer="warehouse", direction="receive", kind="unicast"
        )
        == 10
    )
    assert (
        value(series, "peer_wire_bytes_total", tunnel="sites", peer="warehouse", direction="transmit") == 300
    )
    assert value(series, "peer_last_seen_timestamp_seconds", tunnel="sites", peer="warehouse") == NOW - 1
    assert value(series, "tunnel_peers", tunnel="sites") == 1
    assert value(series, "tunnel_up", tunnel="sites") == 1
    assert value(series, "bridge_port_up", bridge="br0", port="eth2") == 0
    assert value(series, "fdb_entries", tunnel="sites") == 4
    assert value(series, "handshakes_total", tunnel="sites", phase="initial", outcome="timeout") == 2
    assert value(series, "certificate_not_after_timestamp_seconds", tunnel="sites", role="own") == NOW + 1000
    assert value(series, "queue_capacity", queue="tap_write") == 1024
    info = [dict(labels) for name, labels in series if name == "bridged_peer_info"]
    assert [entry["key_group"] for entry in info] == ["X25519MLKEM768"]


def test_drops_of_control_and_data_plane_are_summed_and_classed() -> None:
    series = Scraper(daemon()).series()
    assert value(series, "drops_total", tunnel="sites", direction="receive", reason="replay") == 3
    assert value(series, "drops_total", tunnel="sites", direction="receive", reason="wrap_mismatch") == 9
    per_class = {"tunnel": "sites", "peer": "warehouse", "direction": "receive"}
    assert value(series, "peer_drops_total", **per_class, **{"class": "auth"}) == 3


def test_fixed_label_sets_start_at_zero() -> None:
    state = daemon(tunnel("idle", absent_peer("p"), handshakes={}, control_drops={}, dataplane=None))
    series = Scraper(state).series()
    assert labels_of(series, "drops_total", "reason") == set(ALL_DROP_REASONS)
    assert labels_of(series, "handshakes_total", "outcome") == set(HANDSHAKE_OUTCOMES)
    assert labels_of(series, "peer_disconnects_total", "reason") == set(DISCONNECT_REASONS)
    assert labels_of(series, "peer_drops_total", "class") == set(DROP_CLASSES)
    assert (
        value(series, "peer_frames_total", tunnel="idle", peer="p", direction="receive", kind="multicast")
        == 0
    )


def test_only_what_can_be_counted_has_a_series() -> None:
    """A zero would promise that somebody looks: each data plane names its own MTU events."""
    series = Scraper(
        daemon(tunnel("sites", dataplane=replace(plane(), counts={"mtu_events": {"mss_clamped": 0}})))
    ).series()
    assert labels_of(series, "mtu_events_total", "event") == {"mss_clamped"}
    pairs = {
        (dict(labels)["offload"], dict(labels)["cause"])
        for name, labels in series
        if name == "bridged_dataplane_offload_fallbacks_total"
    }
    assert pairs == set(OFFLOAD_FALLBACKS)


def test_what_is_not_known_is_absent_and_never_zero() -> None:
    series = Scraper(daemon(tunnel("sites", absent_peer("workshop"), dataplane=None))).series()
    names = {name for name, _ in series}
    for name in (
        "peer_last_seen_timestamp_seconds",
        "peer_connected_since_timestamp_seconds",
        "peer_key_established_timestamp_seconds",
        "peer_certificate_not_after_timestamp_seconds",
        "peer_rtt_seconds",
        "peer_info",
        "fdb_entries",
    ):
        assert f"bridged_{name}" not in names
    assert value(series, "peer_connected", tunnel="sites", peer="workshop") == 0


def test_no_series_has_an_endpoint_or_a_creation_time() -> None:
    text = Scraper(daemon()).text()
    assert "192.0.2.7" not in text
    assert "_created" not in text


def test_histograms_are_cumulative_and_end_at_infinity() -> None:
    series = Scraper(daemon()).series()
    buckets = [
        value(series, "segments_per_send_bucket", tunnel="sites", le=edge)
        for edge in ("1.0", "2.0", "4.0", "+Inf")
    ]
    assert buckets == [5, 5, 7, 8]
    assert value(series, "segments_per_send_count", tunnel="sites") == 8
    assert value(series, "segments_per_send_sum", tunnel="sites") == 20


def test_peers_beyond_the_limit_are_summed_and_counted() -> None:
    peers = [peer(f"p{number}", fdb_entries=1, last_seen=NOW - number) for number in range(5)]
    series = Scraper(daemon(tunnel("sites", *peers)), max_peers=2).series()
    assert labels_of(series, "peer_connected", "peer") == {"p0", "p1", "_other"}
    assert value(series, "metrics_peers_folded") == 3
    other = {"tunnel": "sites", "peer": "_other"}
    assert value(series, "peer_sessions", **other) == 3
    assert value(series, "peer_fdb_entries", **other) == 3
    assert value(series, "peer_frames_total", **other, direction="receive", kind="unicast") == 30
    assert value(series, "peer_last_seen_timestamp_seconds", **other) == NOW - 2
    assert value(series, "peer_disconnects_total", **other, reason="ping_timeout") == 3


def test_a_folded_peer_stays_folded_and_the_sum_never_falls() -> None:
    def bytes_of_other() -> float | None:
        found = scraper.series()
        return value(
            found, "peer_bytes_total", tunnel="sites", peer="_other", direction="receive", kind="unicast"
        )

    scraper = Scraper(daemon(tunnel("sites", peer("a"), peer("b"), peer("c"))), max_peers=1)
    assert bytes_of_other() == 20_000
    scraper.state = daemon(tunnel("sites", peer("b"), peer("c")))
    assert bytes_of_other() == 20_000, "b and c must not get series of their own when a goes"
    scraper.state = daemon(tunnel("sites", peer("c", counters=counters(2))))
    assert bytes_of_other() == 30_000, "what b had counted stays"
    scraper.state = daemon(tunnel("sites"))
    assert bytes_of_other() == 30_000


def test_two_entries_of_one_name_are_summed_and_do_not_fail_the_scrape() -> None:
    twice = tunnel("sites", peer("a", connected=False, sessions=0), peer("a", cipher="AES-128-GCM"))
    series = Scraper(daemon(twice)).series()
    assert value(series, "peer_connections_total", tunnel="sites", peer="a") == 2
    assert value(series, "peer_connected", tunnel="sites", peer="a") == 1
    assert (
        value(series, "peer_frames_total", tunnel="sites", peer="a", direction="receive", kind="unicast")
        == 20
    )


def test_queues_and_threads_of_several_tunnels_are_summed() -> None:
    series = Scraper(daemon(tunnel("a"), tunnel("b"))).series()
    assert value(series, "queue_depth", queue="tap_write") == 2
    assert value(series, "thread_cpu_seconds_total", thread="tap-0") == 5


def test_names_can_be_hashed_or_left_out() -> None:
    state = daemon(tunnel("sites", peer("alice"), peer("bob")))
    hashed = labels_of(Scraper(state, peer_label="hash").series(), "peer_connected", "peer")
    assert len(hashed) == 2
    assert all(len(name) == 16 for name in hashed)
    assert hashed == labels_of(Scraper(state, peer_label="hash").series(), "peer_connected", "peer")
    none = Scraper(state, peer_label="none")
    assert labels_of(none.series(), "peer_connected", "peer") == {"_other"}
    assert value(none.series(), "peer_connections_total", tunnel="sites", peer="_other") == 2
    assert "alice" not in none.text()


@pytest.mark.parametrize(
    "name", ['quo"te', "back\\slash", "new\nline", "_other", "\udcff", "größe", "100%d %(a)s"]
)
def test_any_name_of_a_peer_survives(name: str) -> None:
    series = Scraper(daemon(tunnel("sites", peer(name), peer("plain")))).series()
    shown = labels_of(series, "peer_connected", "peer")
    assert shown == {name.encode("utf-8", "replace").decode(), "plain"}


def test_an_unknown_disconnect_reason_is_not_lost() -> None:
    series = Scraper(daemon(tunnel("sites", peer("a", disconnects={"new_reason": 4, "%s": 5})))).series()
    assert value(series, "peer_disconnects_total", tunnel="sites", peer="a", reason="new_reason") == 4
    assert value(series, "peer_disconnects_total", tunnel="sites", peer="a", reason="%s") == 5


def test_a_changed_cipher_replaces_the_info_series() -> None:
    scraper = Scraper(daemon(tunnel("sites", peer("a"))))
    scraper.series()
    scraper.state = daemon(tunnel("sites", peer("a", cipher="CHACHA20-POLY1305")))
    ciphers = labels_of(scraper.series(), "peer_info", "cipher")
    assert ciphers == {"CHACHA20-POLY1305"}


def test_process_and_python_metrics_are_there() -> None:
    scraper = Scraper(daemon())
    text = render(build_registry(scraper.collector).collect()).decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {
        "process_cpu_seconds",
        "process_resident_memory_bytes",
        "python_info",
        "bridged_tunnel_up",
    } <= names
    assert "_created" not in text


@pytest.mark.measures
def test_a_scrape_of_a_thousand_peers_takes_less_than_fifty_milliseconds() -> None:
    peers = [peer(f"site-{number:04}") for number in range(1000)]
    scraper = Scraper(daemon(tunnel("sites", *peers)))
    scraper.text()
    times = []
    gc.collect()
    for _ in range(7):
        begin = time.thread_time()
        text = scraper.text()
        times.append(time.thread_time() - begin)
    assert text.count('peer="_other"') > 30
    # On a slow machine: a share of what the client library takes only to write the same text.
    at_most_or(min(times), 0.05, 0.4, lambda: writing(text), "the quickest of seven scrapes")
