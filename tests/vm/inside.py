"""Runs inside the virtual machine: the tests that the image lists. A line of JSON tells how each ended."""

from __future__ import annotations

import json
import sys

import pytest

from tests.vm.machine import RESULT_MARK, TESTS_FILE


class Reporter:
    """Writes each test's end to the console at once, so that a machine that hangs still tells the others'."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seconds = self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if report.when != "call" and report.outcome == "passed":
            return
        told = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(seconds, 1),
            "text": report.longreprtext,
        }
        print(f"\n{RESULT_MARK}{json.dumps(told)}", flush=True)


def main() -> int:
    tests = json.loads(TESTS_FILE.read_text())
    options = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--timeout=0", "-q")
    return int(pytest.main([*options, *tests], plugins=[Reporter()]))


if __name__ == "__main__":
    sys.exit(main())
