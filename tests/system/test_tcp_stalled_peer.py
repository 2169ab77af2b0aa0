"""A peer over TCP that stops to read costs the other peers nothing, and returns."""

from __future__ import annotations

import pytest

from tests.bench.stalled import OTHERS, stall_bench
from tests.lab.bounds import at_most

pytestmark = [pytest.mark.root, pytest.mark.measures]
MEBIBYTE = 1 << 20


@pytest.mark.parametrize("build", [pytest.param("native", marks=pytest.mark.native), "portable"])
def test_a_stalled_peer_costs_no_rate_and_little_memory_and_returns(build: str) -> None:
    with stall_bench(build) as bench:
        found = bench.measure(rounds=2, seconds=1.0, stall_seconds=1.5)
    assert found.dropped > 0, "nothing waited long enough to be dropped"
    assert found.ended_sessions == 0
    assert found.grown_octets < 4 * MEBIBYTE
    assert found.waiting_octets < 6 * MEBIBYTE
    for name in OTHERS:
        at_most(1 - found.kept(name), 0.05, f"what a stalled peer costs the one over {name}", "of its rate")
