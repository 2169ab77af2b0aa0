"""The soak, half a minute of it; and that it would notice what it looks for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.soak import arrived_octets
from tests.bench.soak_watch import (
    MEBIOCTET,
    Sample,
    has_grown,
    judge_log,
    judge_samples,
    lost_in,
    slope_per_ten_minutes,
    stray_losses,
)
from tests.lab.namespace import lab_namespaces
from tests.lab.waiting import NotInTime

PROJECT = Path(__file__).parents[2]


@pytest.mark.root
@pytest.mark.measures
def test_half_a_minute_of_soak_ends_well(tmp_path: Path) -> None:
    before = set(lab_namespaces())
    file = tmp_path / "soak.json"
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.bench.soak",
            "--minutes",
            "0.5",
            "--peers",
            "20",
            "--output",
            str(file),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    document = json.loads(file.read_text())
    if ended.returncode != 0 or not all(check["good"] for check in document["checks"]):
        # Losses and growth are measured: beside other tests they prove nothing.
        raise NotInTime(ended.stdout + ended.stderr)
    names = {check["name"] for check in document["checks"]}
    assert {
        "renegotiations",
        "reloads",
        "20 light clients",
        "peer c1",
        "ping c3 (visits) → hub",
        "hub: memory",
        "hub: log",
    } <= names
    if len(document["samples"]["hub"]) <= 10:
        raise NotInTime(f"only {len(document['samples']['hub'])} samples of the hub, more than 10 expected")
    # Another run on this machine may have its own.
    assert not [name for name in set(lab_namespaces()) - before if name.startswith("bl-soak-")]


def line(mebioctets_per_ten_minutes: float, seconds: int = 1200) -> list[Sample]:
    """A sample every 10 s of a daemon that grows steadily, with a saw on top."""
    step = mebioctets_per_ten_minutes * MEBIOCTET / 600
    return [
        Sample(at, int(50 * MEBIOCTET + at * step + at % 3 * 4096), 18, 4) for at in range(0, seconds, 10)
    ]


def test_memory_that_grows_slowly_is_noticed() -> None:
    assert slope_per_ten_minutes(line(1.5)) == pytest.approx(1.5, abs=0.01)
    assert [check.good for check in judge_samples("x", line(1.5), 300)] == [False, True, True]
    assert [check.good for check in judge_samples("x", line(0.5), 300)] == [True, True, True]


def test_memory_that_grew_before_the_warm_up_was_over_is_no_leak() -> None:
    rising = [Sample(at, min(at, 290) * MEBIOCTET, 18, 4) for at in range(0, 1200, 10)]
    assert judge_samples("x", rising, 300)[0].good
    assert not judge_samples("x", rising, 0)[0].good


def test_a_short_run_is_judged_by_its_growth() -> None:
    assert judge_samples("x", line(100, 40), 0)[0].good
    assert not judge_samples("x", line(200, 40), 0)[0].good
    assert not judge_samples("x", line(0, 20), 0)[0].good, "two samples prove nothing"


def test_descriptors_that_stay_open_are_a_leak_and_a_peak_is_not() -> None:
    assert has_grown([18, 18, 19, 20, 21, 22])
    assert not has_grown([18, 18, 40, 40, 18, 18])
    assert not has_grown([18, 20, 18, 20, 18, 20])


PINGS = """\
[100.0] 64 bytes from 10.99.0.1: icmp_seq=1 ttl=64 time=0.2 ms
[100.3] no answer yet for icmp_seq=2
[100.4] no answer yet for icmp_seq=3
[100.5] 64 bytes from 10.99.0.1: icmp_seq=3 ttl=64 time=120 ms
[100.5] 64 bytes from 10.99.0.1: icmp_seq=4 ttl=64 time=0.2 ms
[103.0] no answer yet for icmp_seq=29
"""


def test_a_late_answer_is_no_lost_ping() -> None:
    assert lost_in(PINGS) == [100.3, 103.0]


def test_a_lost_ping_is_by_design_only_right_after_a_change_of_address() -> None:
    assert stray_losses([100.3, 103.0], [100.1], 1.1) == [103.0]
    assert stray_losses([100.3, 103.0], [100.1, 101.95], 1.1) == []
    assert stray_losses([100.3], [100.4], 1.1) == [100.3], "the change came after it"


def test_warnings_errors_and_tracebacks_in_a_log_are_noticed() -> None:
    info = '{"level": "info", "event": "peer_connected"}\n'
    warning = '{"level": "warning", "event": "lookup_failed"}\n'
    assert judge_log("x", info, frozenset()).good
    assert not judge_log("x", info + warning, frozenset()).good
    assert judge_log("x", info + warning, frozenset({"lookup_failed"})).good
    assert not judge_log("x", info + "Traceback (most recent call last):\n", frozenset()).good


def test_octets_that_arrived_are_counted_for_tcp_and_udp() -> None:
    assert arrived_octets('{"end": {"sum_received": {"bytes": 7}}}') == 7
    udp = '{"end": {"sum": {"bytes": 1000, "packets": 10, "lost_packets": 10}}}'
    assert arrived_octets(udp) == 0
    assert arrived_octets(udp.replace('"lost_packets": 10', '"lost_packets": 1')) == 900
    assert arrived_octets("iperf3: error") == 0
    assert arrived_octets(f"warning: large\n{udp}".replace('"lost_packets": 10', '"lost_packets": 0')) == 1000
