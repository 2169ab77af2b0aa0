"""Namespaces that several system tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import prepared
from tests.lab.namespace import Namespace

EXECUTED = frozenset(
    (
        *("test_daemon_adapter.py", "test_daemon_footprint.py", "test_daemon_handover.py"),
        *("test_daemon_many_clients.py", "test_daemon_privileges.py", "test_daemon_start.py"),
        *("test_daemon_stop.py", "test_daemon_without_native.py", "test_metrics_clients.py"),
        *("test_monitoring.py", "test_prepared_daemons.py", "test_scrape_cost.py", "test_service_manager.py"),
    )
)
"""About a daemon's start and end, its memory, processor time or rights: here daemons are executed."""


@pytest.fixture(scope="module", autouse=True)
def _prepared_daemons(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.name in EXECUTED:
        yield
        return
    with prepared.offered():
        yield


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace with nothing but loopback in it."""
    made = Namespace("tap", "one", tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Namespace]:
    """A second one."""
    made = Namespace("tap", "other", tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def inside(namespace: Namespace) -> Iterator[Namespace]:
    """As `namespace`; the test's own thread is in it."""
    with namespace.entered():
        yield namespace
