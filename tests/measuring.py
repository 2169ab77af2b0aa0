"""The mark `measures`: a test that bounds a time, on a machine that others use at the same time.

Whatever else the machine does makes a measured time longer, never shorter. One good measurement proves the
bound; a bad one proves nothing yet. A test that missed a bound runs again, up to ATTEMPTS times in all, and
from the second time on it has the machine for itself (tests/quiet_machine.py). Only missed bounds count
(`NotInTime`, raised by `at_most` and by all waiting in the lab): any other failure stands. The end of the run
lists what was measured again.

    @pytest.mark.measures
    def test_a_reload_takes_less_than_a_second() -> None:
        began = time.monotonic()
        ...
        at_most(time.monotonic() - began, 1.0, "a reload")

Fixtures of the test are made anew. Those of its module are not while other tests need them: the test must be
able to run again on what it changed there.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests import quiet_machine
from tests.lab.waiting import NotInTime

ATTEMPTS = 3
TIMEOUT_SECONDS = 1800.0
"""Of all attempts, and of waiting for the machine: the virtual machine has it for minutes."""
_PROPERTY = "measured again"


def is_measurement(item: pytest.Item) -> bool:
    return item.get_closest_marker("measures") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_measurement(item) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    report.missed_bound = call.excinfo is not None and call.excinfo.errisinstance(NotInTime)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not is_measurement(item):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    is_alone = item.get_closest_marker("alone") is not None
    for attempt in range(1, ATTEMPTS + 1):
        with quiet_machine.place(alone=is_alone or attempt > 1):
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        failed = [report for report in reports if report.failed]
        if not failed or attempt == ATTEMPTS or not all(report.missed_bound for report in failed):
            break
        item.user_properties.append((_PROPERTY, _reason(failed[0])))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else report.longreprtext[-200:]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        f"{report.nodeid}: {text}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, text in report.user_properties
        if name == _PROPERTY
    ]
    if lines:
        terminalreporter.section(_PROPERTY)
        for line in lines:
            terminalreporter.write_line(line)
