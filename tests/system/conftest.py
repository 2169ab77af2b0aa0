"""Namespaces that several system tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.namespace import Namespace


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
