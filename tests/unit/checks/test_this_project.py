"""The checks that `make lint` runs find nothing in this project, which is read once for all of them."""

from __future__ import annotations

import gc
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from scripts.checks import endings, metric_families, names, producers, sizes
from scripts.checks.sources import Sources


@cache
def project() -> Sources:
    read = Sources.read(Path(__file__).parents[3])
    # It stays until this process ends, and would make each garbage collection longer.
    gc.freeze()
    return read


@pytest.mark.parametrize(
    "module", [endings, metric_families, names, producers, sizes], ids=lambda module: module.__name__
)
def test_nothing_is_found_in_this_project(module: ModuleType) -> None:
    assert list(module.check(project())) == []
