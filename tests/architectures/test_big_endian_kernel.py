"""What needs a kernel of the other byte order: system calls, netlink, and daemons with real adapters."""

from __future__ import annotations

from tests.architectures.kernel import run_on_kernel
from tests.architectures.machines import MACHINES, ready
from tests.architectures.native_build import built_tests, passed

SYS_TESTS_LEAST = 32
JOIN = """\
python -c '
from tests.architectures.two_lans import join_two_lans
join_two_lans("bridged", "bridged", "portable")
'"""


def test_the_rust_tests_of_system_calls_pass() -> None:
    programs = {path.name: path for path in built_tests(ready(MACHINES["s390x"]), "bridged-sys")}
    assert len(programs) == 1
    # One at a time: those of memory count what their thread does.
    said = run_on_kernel(programs, f"/work/{next(iter(programs))} --test-threads=1")
    assert passed(said) >= SYS_TESTS_LEAST


def test_two_lans_are_joined_by_daemons_of_a_big_endian_machine() -> None:
    run_on_kernel({}, JOIN)
