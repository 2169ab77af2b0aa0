"""The order of the tests: which file begins when, and which worker has it.

Whole files go to a worker. Files whose tests need the machine for themselves come first, and beside them a
folder of short tests (FILLING): none of them waits for a long test of another. The longest files follow, then
slow folders, to leave short files for the end.
The tests of the virtual machine share one boot, and so one worker.

BRIDGED_TEST_ORDER=SEED shuffles the tests within their files, and the files of each kind: no test may need
another one to have run before it (`make test-random`).
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "BRIDGED_TEST_ORDER"
SLOW_FOLDERS = ("system", "vm", "interop", "architectures", "packaging", "sim", "property")
FILLING = "contract"
SINGLE_TESTS = "tests/architectures/test_whole_suite.py::"
"""Each of these goes to a worker of its own: it is a run of pytest that takes minutes."""
LONG_FILES = (
    # Most of them wait. The virtual machine does not; what else is busy for long comes later.
    *("vm/test_vm_clock.py", "interop/test_openvpn_matrix.py", "interop/test_openvpn_mtu_test.py"),
    "interop/test_openvpn_refusals.py",
    *("interop/test_openvpn_persistence.py", "interop/test_openvpn_framing.py", "system/test_monitoring.py"),
    *("interop/test_openvpn_releases.py", "interop/test_openvpn_point_to_point.py", "system/test_bench.py"),
    *("interop/test_openvpn_float.py", "interop/test_openvpn_renegotiation.py"),
)
"""Each takes its worker for a minute or so: the end of the run would wait for it."""
LONG_UNITS = (
    *("unit/cli/test_command_line.py", "unit/checks/test_this_project.py", "unit/monitoring/test_rules.py"),
    *("unit/protocol/test_reset_limit.py", "unit/telemetry/test_collector.py"),
)
"""The longest of the fast folders."""
_TESTS = Path(__file__).parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep this order, and the tests of the virtual machine on one worker."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(SINGLE_TESTS):
                return nodeid
            return "tests/vm" if nodeid.startswith("tests/vm/") else str(super()._split_scope(nodeid))

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_report_header() -> str | None:
    return f"order of tests: shuffled, {VARIABLE}={_seed()}" if _seed() else None


class _Shuffle:
    """Before pytest brings together what shares a fixture."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if _seed():
            dice = random.Random(_seed())
            files = _by_file(items)
            for path in dice.sample(sorted(files), len(files)):
                dice.shuffle(files[path])
            items[:] = [item for path in dice.sample(sorted(files), len(files)) for item in files[path]]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Shuffle())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = _by_file(items)
    ranked = sorted(files, key=lambda path: _rank(path, files[path]))
    items[:] = [item for path in ranked for item in files[path]]


def _seed() -> str:
    return os.environ.get(VARIABLE, "")


def _by_file(items: list[pytest.Item]) -> dict[Path, list[pytest.Item]]:
    files: defaultdict[Path, list[pytest.Item]] = defaultdict(list)
    for item in items:
        files[item.path].append(item)
    return files


def _rank(path: Path, tests: list[pytest.Item]) -> tuple[int, int]:
    """Smaller: earlier."""
    if any(item.get_closest_marker("alone") for item in tests):
        return 0, 0
    name = str(path.relative_to(_TESTS)) if path.is_relative_to(_TESTS) else ""
    folder = name.split("/")[0]
    if folder == FILLING:
        return 1, 0
    if name in LONG_FILES:
        return 2, LONG_FILES.index(name)
    is_slow = folder in SLOW_FOLDERS
    return 3 + (SLOW_FOLDERS.index(folder) if is_slow else len(SLOW_FOLDERS)), int(name not in LONG_UNITS)
