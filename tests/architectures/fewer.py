"""A plugin for pytest under the emulator: a few cases of each test and a few examples of each property.

The emulated tests are to find what depends on the processor; this host's own run has every case.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import hypothesis
import pytest

CASES_MAX = 6
EXAMPLES_MAX = 15


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept: list[pytest.Item] = []
    for _, cases in groupby(items, key=lambda item: item.nodeid.partition("[")[0]):
        found = list(cases)
        step = -(-len(found) // CASES_MAX)
        kept += found[::step]
    left = set(items).difference(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = kept
    for item in items:
        _draw_fewer(getattr(item, "obj", None))


def _draw_fewer(test: Any) -> None:
    function = getattr(test, "__func__", test)
    settings = getattr(function, "_hypothesis_internal_use_settings", None)
    if settings is not None and settings.max_examples > EXAMPLES_MAX:
        fewer = hypothesis.settings(settings, max_examples=EXAMPLES_MAX)
        function._hypothesis_internal_use_settings = fewer
