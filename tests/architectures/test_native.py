"""The native data plane on other processors: its pure part's and its system calls' own tests, and daemons."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architectures import emulator
from tests.architectures.machines import MACHINES, ready
from tests.architectures.native_build import native_program, run_rust_tests
from tests.architectures.two_lans import join_two_lans

CORE_TESTS_LEAST = 55
SYS_TESTS_LEAST = 32


@pytest.mark.parametrize("name", ["arm64", "armhf", "s390x"])
def test_the_rust_tests_of_the_core_pass(name: str) -> None:
    assert run_rust_tests(ready(MACHINES[name]), "bridged-core") >= CORE_TESTS_LEAST


@pytest.mark.parametrize("name", ["arm64", "armhf"])
def test_the_rust_tests_of_system_calls_pass_where_the_emulator_has_the_call(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    machine = ready(MACHINES[name])
    left_out = emulator.tests_that_cannot_run(machine)
    for test, reason in left_out.items():
        record_property("left_out", f"{name}: native/sys {test}: {reason}")
    assert run_rust_tests(machine, "bridged-sys", left_out) >= SYS_TESTS_LEAST - len(left_out)


def test_the_question_to_the_emulator_finds_on_this_host_what_a_kernel_has() -> None:
    assert set(emulator.known(Path(sys.executable)).values()) == {True}


@pytest.mark.root
@pytest.mark.parametrize(("server", "client"), [("arm64", "armhf"), ("armhf", "arm64")])
def test_two_lans_are_joined_by_native_data_planes_of_different_architectures(
    server: str, client: str, tmp_path: Path
) -> None:
    programs = [native_program(ready(MACHINES[name]), tmp_path) for name in (server, client)]
    join_two_lans(*map(str, programs), dataplane="native")
