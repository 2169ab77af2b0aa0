"""What needs a kernel of the other byte order: system calls, netlink, and daemons with real adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.architectures.kernel import run_on_kernel
from tests.architectures.machines import MACHINES, ready
from tests.architectures.native_build import built_tests, passed

SYS_TESTS_LEAST = 32
WORKER_TESTS_LEAST = 99
NOT_HERE: Final = {
    "wan_to_lan::receiver::tests::a_fast_stream_of_large_packets_gathers_and_none_is_lost": "an emulated "
    "processor makes no fast stream",
}
JOIN = """\
python -c '
from tests.architectures.two_lans import join_two_lans
join_two_lans("bridged", "bridged", "portable")
'"""


def test_the_rust_tests_of_system_calls_pass() -> None:
    assert _run("bridged-sys", "bridged_sys") >= SYS_TESTS_LEAST


def test_the_rust_tests_of_the_worker_pass(record_property: Callable[[str, object], None]) -> None:
    for test, reason in NOT_HERE.items():
        record_property("left_out", f"s390x: native/worker {test}: {reason}")
    record_property(
        "left_out", "s390x: native/worker tests/corpus.rs: its inputs stay on this host, which replays them"
    )
    assert _run("bridged-worker", "bridged_worker", "loopback") >= WORKER_TESTS_LEAST


def test_two_lans_are_joined_by_daemons_of_a_big_endian_machine() -> None:
    run_on_kernel({}, JOIN)


def _run(package: str, *names: str) -> int:
    """How many tests of these programs of a package passed; one at a time, as some look at their thread."""
    built = {path.name.rpartition("-")[0]: path for path in built_tests(ready(MACHINES["s390x"]), package)}
    left_out = " ".join(f"--skip {name}" for name in NOT_HERE)
    steps = " && ".join(f"/work/{name} --test-threads=1 --exact {left_out}" for name in names)
    return passed(run_on_kernel({name: built[name] for name in names}, steps))
