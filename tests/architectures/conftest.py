"""`make test` runs the short form; `make test-architectures` sets BRIDGED_ARCHITECTURES=all: everything."""

from __future__ import annotations

import os

import pytest

ALL = os.environ.get("BRIDGED_ARCHITECTURES") == "all"
collect_ignore = [] if ALL else ["test_whole_suite.py", "test_two_daemons.py", "test_native.py"]


def pytest_report_header() -> str:
    short = "only codecs, vectors and TAP structures on s390x; the rest: make test-architectures"
    return f"other architectures: {'arm64, armhf and s390x' if ALL else short}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "architectures":
            item.add_marker(pytest.mark.timeout(3600 if ALL else 900))
