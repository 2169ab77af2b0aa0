"""The short form: what depends on the order of bytes, on a machine that has the other one."""

from __future__ import annotations

from pathlib import Path

from tests.architectures.inside import files_of, run_tests
from tests.architectures.machines import MACHINES, ready

PARTS = ("tests/vectors", "tests/unit/tap", "tests/unit/protocol", "tests/unit/dataplane")
SLOW = "tests/unit/protocol/test_reset_limit.py"
"""Counts, no codec: left to the long form."""
SECONDS = 1400.0


def test_codecs_vectors_switching_and_tap_structures_hold_on_a_big_endian_machine(tmp_path: Path) -> None:
    machine = ready(MACHINES["s390x"])
    outcome = run_tests(machine, tmp_path, f"--ignore={SLOW}", *PARTS, seconds=SECONDS)
    assert not outcome.others
    assert set(outcome.passed) == files_of(machine, *PARTS) - {SLOW}
