"""The benchmark measures in turn and writes what others read: build/bench.json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bridged.dataplane import choose_dataplane
from tests.bench.latency import reading_of
from tests.bench.measures import MEASURES, MORE_MEASURES
from tests.bench.mixed import passes as mixed_passes
from tests.bench.results import Result, exit_status
from tests.bench.run import parse
from tests.lab.bounds import at_least, at_most
from tests.lab.namespace import lab_namespaces
from tests.lab.waiting import LabError, NotInTime

PROJECT = Path(__file__).parents[2]
SOMETHING = 1e-6
"""Of any measure, in its unit."""


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench.run", "--wan-mtu", "1500", "--seconds", "1", *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.root
@pytest.mark.measures
def test_the_bench_writes_the_pairs_of_every_measure(tmp_path: Path) -> None:
    before = set(lab_namespaces())
    file = tmp_path / "bench.json"
    ended = bench("--pairs", "1", "--output", str(file))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads(file.read_text())
    assert {result["measure"] for result in results} == {"tcp_stream", "udp_64_byte_packets", "round_trip"}
    for result in results:
        assert (result["dataplane"], result["peer"], result["wan_mtu"]) == ("portable", "openvpn", 1500)
        ((ours, theirs),) = result["pairs"]
        for value in (ours, theirs):
            at_least(value, SOMETHING, result["measure"])
        assert result["ratio_median"] == pytest.approx(ours / theirs, rel=0.02, abs=0.0005)
    # Another run on this machine may have its own.
    assert not [name for name in set(lab_namespaces()) - before if name.startswith("bl-bench-")]


@pytest.mark.root
@pytest.mark.measures
def test_the_scenes_of_the_native_bars_run_with_any_data_plane(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    names = {"tcp_4_streams_both_ways", "flood_ping", "cpu_seconds_per_gigabyte"}
    scenes = ("one_end_openvpn", "hub_all_to_all")
    options = ("--hub-peers", "3", "--wan-offload", "off", "--pairs", "1", "--output", str(file))
    options += ("--congestion", "reno")
    ended = bench(*options, "--measure", *sorted(names), *scenes)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = {one["measure"]: one for one in json.loads(file.read_text())}
    assert set(results) == names | {"one_end_openvpn_receives", "one_end_openvpn_sends", "hub_all_to_all"}
    for name, one in results.items():
        at_least(min(one["pairs"][0]), SOMETHING, name)
    assert {one["wan_offload"] for one in results.values()} == {"off"}
    assert {one["tcp"] for name, one in results.items() if name != "hub_all_to_all"} == {"reno"}
    for side in results["hub_all_to_all"]["details"][0].values():
        assert side["verified_pairs"] == 3 * 2


@pytest.mark.root
@pytest.mark.measures
def test_the_latency_of_urgent_frames_is_taken_with_priority_and_without(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    build = choose_dataplane("auto").kind
    scene = ("--scene", "udp_slow_wan")
    options = ("--dataplane", build, "--wan-offload", "off", "--measure", "latency_under_load", *scene)
    ended = bench("--pairs", "1", "--output", str(file), *options)
    if "pings were answered" in ended.stderr:
        # What is busy otherwise answers too late, or not at all.
        raise NotInTime(ended.stderr)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads(file.read_text())
    assert len(results) == 2
    for one in results:
        (sides,) = one["details"]
        for side in sides.values():
            assert 0 < side["p50"] <= side["p99"] <= side["p99_9"] <= side["longest"]
            assert 0 <= side["lost_ratio"] < 1
    urgent, bulk = (
        side["p50"]
        for one in results
        if one["peer"].startswith("bridged")
        for side in (one["details"][0]["ours"], one["details"][0]["theirs"])
    )
    if build == "native":
        # An overfull queue that is not overtaken takes a third of a second.
        at_most(urgent, bulk / 2, "the median round trip of urgent frames")


@pytest.mark.root
@pytest.mark.native
@pytest.mark.measures
def test_a_lossy_line_is_measured_with_both_programs_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    options = (
        "--dataplane",
        "native",
        "--measure",
        "lossy_lines",
        "--line",
        "10/1/1",
        "--congestion",
        "reno",
    )
    ended = bench("--pairs", "1", "--output", str(file), *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (result,) = json.loads(file.read_text())
    assert result["measure"] == "tcp_10_ms_1_percent_1_streams"
    for side in result["details"][0].values():
        at_least(side["retransmits"], 1, "packets sent again over a line that loses one in a hundred")


def test_percentiles_are_of_what_was_answered_and_losses_are_told() -> None:
    reading = reading_of([float(number) for number in range(1, 1001)], 2000)
    assert (reading.details["p50"], reading.details["p99"], reading.value) == (501.0, 991.0, 1000.0)
    assert reading.details["lost_ratio"] == 0.5
    with pytest.raises(LabError, match="only 1 of 100"):
        reading_of([1.0], 100)


def result(
    name: str, *pairs: tuple[float, float], dataplane: str = "portable", peer: str = "openvpn"
) -> Result:
    measure = next(measure for measure in (*MEASURES, *MORE_MEASURES) if measure.name == name)
    return Result(measure, dataplane, peer, 1500, list(pairs))


def test_a_missed_bar_fails_only_where_it_is_enforced() -> None:
    met = result("tcp_stream", (160.0, 100.0), (90.0, 100.0), (151.0, 100.0))
    slow = result("tcp_stream", (149.0, 100.0))
    late = result("round_trip", (131.0, 100.0))
    assert exit_status([met, result("round_trip", (130.0, 100.0))], enforce=True) == 0
    assert exit_status([met, slow], enforce=True) == 1
    assert exit_status([met, late], enforce=True) == 1
    assert exit_status([met, slow, late], enforce=False) == 0


def test_the_median_is_of_the_ratios_not_the_ratio_of_medians() -> None:
    measured = result("udp_64_byte_packets", (100.0, 50.0), (10.0, 10.0), (30.0, 60.0))
    assert measured.ratio_median == 1.0
    assert measured.document()["pairs"] == [[100.0, 50.0], [10.0, 10.0], [30.0, 60.0]]


def test_the_native_bars_are_those_of_the_peer() -> None:
    def native(name: str, ratio: float, peer: str = "openvpn") -> bool:
        return result(name, (ratio * 100, 100.0), dataplane="native", peer=peer).passes

    assert native("tcp_stream", 9.0) and not native("tcp_stream", 8.9)
    assert native("tcp_stream", 5.0, "fastd") and not native("tcp_stream", 4.9, "fastd")
    assert native("tcp_stream", 0.2, "vxlan"), "the ceiling is quoted, it is no bar"
    assert native("tcp_4_streams_both_ways", 9.0) and not native("tcp_4_streams_both_ways", 8.9)
    assert native("udp_64_byte_packets", 2.5) and not native("udp_64_byte_packets", 2.4)
    assert native("flood_ping", 1.0) and not native("flood_ping", 1.01)
    assert native("cpu_seconds_per_gigabyte", 0.11) and not native("cpu_seconds_per_gigabyte", 0.12)


def test_the_openvpn_end_has_to_be_the_busy_one() -> None:
    assert mixed_passes([(34.0, 99.0), (90.0, 99.0), (20.0, 96.0)])
    assert not mixed_passes([(36.0, 99.0)])
    assert not mixed_passes([(10.0, 60.0)]), "then something else was the limit"


def test_a_generator_that_was_the_limit_is_named() -> None:
    measured = result("udp_64_byte_packets", (100.0, 50.0))
    measured.details = [{"ours": {"offered_most": 105.0}, "theirs": {"offered_most": 200.0}}]
    assert measured.generator_limited() == ["ours"]
    assert measured.document()["generator_limited"] == ["ours"]


def test_a_native_bench_takes_everything_and_a_portable_one_what_it_always_did() -> None:
    portable, native = parse([]), parse(["--dataplane", "native"])
    assert portable.measure == [measure.name for measure in MEASURES]
    assert (portable.peer, portable.wan_offload) == (["openvpn"], ["on"])
    assert set(native.measure) > {measure.name for measure in MORE_MEASURES} | {"hub_all_to_all"}
    assert native.wan_offload == ["on", "off"] and {"openvpn", "vxlan"} <= set(native.peer)
    assert (native.hub_peers, native.pairs) == (50, 5)
