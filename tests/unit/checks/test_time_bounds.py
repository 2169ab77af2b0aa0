"""The check of bounds of times in tests."""

from __future__ import annotations

import pytest

from scripts.checks import time_bounds
from scripts.checks.sources import Sources


def found(text: str, path: str = "tests/unit/test_some.py") -> list[int]:
    """The lines with a finding."""
    return [int(line.split(":")[1]) for line in time_bounds.check(Sources.of({path: text}))]


@pytest.mark.parametrize(
    "bound",
    [
        "time.monotonic() - began < 2",
        "2.9 < now() - began <= 4.0",
        "asyncio.get_running_loop().time() - began < 4",
        "ended and abs(perf_counter() - began) < 1.0",
    ],
)
def test_an_upper_bound_in_an_assert_is_found(bound: str) -> None:
    assert found(f"def test_some():\n    assert {bound}\n") == [2]
    assert not found(f"assert {bound}\n", "bridged/some.py")


@pytest.mark.parametrize(
    "bound",
    ["time.monotonic() < deadline", "time.monotonic() - began >= 0.05", "0.05 < now() - began", "took < 2"],
)
def test_lower_bounds_and_what_is_no_time_are_not(bound: str) -> None:
    assert not found(f"def test_some():\n    assert {bound}\n")


def test_a_test_with_a_bound_has_the_mark() -> None:
    for bound in ("with takes_at_most(1.0, 'it'):\n        pass", "at_least(sent, 2000, 'packets')"):
        assert found(f"def test_some():\n    {bound}\n") == [1]
    body = "def test_some():\n    at_most(took, 2.0, 'it')\n"
    assert found(body) == [1]
    assert not found("@pytest.mark.measures\n" + body)
    assert not found("pytestmark = [pytest.mark.root, pytest.mark.measures]\n" + body)
