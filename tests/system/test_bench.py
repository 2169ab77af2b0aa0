"""The benchmark measures in turn and writes what others read: build/bench.json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lab.namespace import lab_namespaces

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.measures import MEASURES
from tests.bench.run import Result, exit_status

PROJECT = Path(__file__).parents[2]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench.run", "--wan-mtu", "1500", "--seconds", "1", *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.root
def test_the_bench_writes_the_pairs_of_every_measure(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    ended = bench("--pairs", "1", "--output", str(file))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads(file.read_text())
    assert {result["measure"] for result in results} == {"tcp_stream", "udp_64_byte_packets", "round_trip"}
    for result in results:
        assert (result["dataplane"], result["peer"], result["wan_mtu"]) == ("portable", "openvpn", 1500)
        ((ours, theirs),) = result["pairs"]
        assert ours > 0 and theirs > 0
        assert result["ratio_median"] == pytest.approx(ours / theirs, rel=0.05)
    assert not [name for name in lab_namespaces() if name.startswith("bl-bench-")]


def result(name: str, *pairs: tuple[float, float]) -> Result:
    measure = next(measure for measure in MEASURES if measure.name == name)
    return Result(measure, "portable", "openvpn", 1500, list(pairs))


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
