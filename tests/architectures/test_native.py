"""The native data plane on other processors: its pure part's own tests, and daemons that use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architectures.machines import MACHINES, ready
from tests.architectures.native_build import native_program, run_core_tests
from tests.architectures.two_lans import join_two_lans

CORE_TESTS_LEAST = 55


@pytest.mark.parametrize("name", ["arm64", "armhf", "s390x"])
def test_the_rust_tests_of_the_core_pass(name: str) -> None:
    assert run_core_tests(ready(MACHINES[name])) >= CORE_TESTS_LEAST


@pytest.mark.root
@pytest.mark.parametrize(("server", "client"), [("arm64", "armhf"), ("armhf", "arm64")])
def test_two_lans_are_joined_by_native_data_planes_of_different_architectures(
    server: str, client: str, tmp_path: Path
) -> None:
    programs = [native_program(ready(MACHINES[name]), tmp_path) for name in (server, client)]
    join_two_lans(*map(str, programs), dataplane="native")
