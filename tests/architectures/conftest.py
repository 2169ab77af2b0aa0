"""`make test` runs the short form; `make test-architectures` sets BRIDGED_ARCHITECTURES=all: everything.

What is left out is printed: of every machine at the begin, what one machine's emulator cannot do at the end.
"""

from __future__ import annotations

import os

import pytest

from tests.architectures import fewer, inside

ALL = os.environ.get("BRIDGED_ARCHITECTURES") == "all"
_LONG = ("test_whole_suite.py", "test_two_daemons.py", "test_native.py", "test_big_endian_kernel.py")
collect_ignore = [] if ALL else list(_LONG)


def pytest_report_header() -> list[str]:
    if not ALL:
        return [
            "other architectures: only codecs, vectors and TAP structures on s390x; "
            "the rest: make test-architectures"
        ]
    return [
        "other architectures: arm64, armhf and s390x",
        f"left out, emulated: cases of a test beyond {fewer.CASES_MAX}, examples beyond {fewer.EXAMPLES_MAX}",
        f"left out, emulated: tests that are not {inside.MARKS!r}",
        *(f"left out, emulated: {path}: {reason}" for path, reason in inside.NOT_HERE.items()),
        *(
            f"left out, emulated, {name}: {path}: {reason}"
            for name, tests in inside.NOT_ON.items()
            for path, reason in tests.items()
        ),
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "architectures":
            item.add_marker(pytest.mark.timeout(3600 if ALL else 1500))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "left_out":
                terminalreporter.write_line(f"left out, emulated: {text}")
