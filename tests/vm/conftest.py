"""Each test in this folder runs inside a virtual machine with Debian's kernel; outside, its outcome is told.

All that were collected run in one boot, also where several test processes share them: the first one boots,
and the others read what it was told. A test of which the machine said nothing has failed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab import prepared
from tests.vm.machine import INSIDE, Run, run_once

_RUN: pytest.StashKey[Run] = pytest.StashKey()


@pytest.fixture(scope="module", autouse=True)
def _prepared_daemons() -> Iterator[None]:
    """Where the processor is emulated, imports take most of the time."""
    with prepared.offered():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Outside the machine: the outcome that the machine told, instead of a call here."""
    if INSIDE in os.environ:
        return None
    session = pyfuncitem.session
    if _RUN not in session.stash:
        tests = [item.nodeid for item in session.items if item.path.parent == pyfuncitem.path.parent]
        session.stash[_RUN] = run_once(tests, os.environ.get("PYTEST_XDIST_TESTRUNUID", ""))
    told = session.stash[_RUN].outcomes.get(pyfuncitem.nodeid)
    if told is None:
        pytest.fail(
            f"the machine did not tell; its console:\n{session.stash[_RUN].console[-6000:]}", pytrace=False
        )
    if told.outcome != "passed":
        pytest.fail(f"in the machine ({told.seconds} s):\n{told.text}", pytrace=False)
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "vm":
            item.add_marker(pytest.mark.timeout(1500))
            item.add_marker(pytest.mark.root)
