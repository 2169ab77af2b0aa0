"""The long form: every test that needs no root, on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architectures.inside import files_of, run_tests
from tests.architectures.machines import MACHINES, ready

SECONDS = 3500.0
FEWER = "tests.architectures.fewer"
PARTS = ("tests/unit", "tests/property", "tests/sim", "tests/vectors")


@pytest.mark.parametrize("name", ["arm64", "armhf", "s390x"])
@pytest.mark.parametrize("part", PARTS)
def test_the_tests_that_need_no_root_pass(name: str, part: str, tmp_path: Path) -> None:
    machine = ready(MACHINES[name])
    outcome = run_tests(machine, tmp_path, "-p", FEWER, part, seconds=SECONDS)
    assert not outcome.others
    assert set(outcome.passed) == files_of(machine, part)
