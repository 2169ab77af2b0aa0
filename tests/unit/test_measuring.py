"""A test that missed a bound of time is measured again; any other failure stands at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import bounds, references
from tests.lab.waiting import NotInTime

REPOSITORY = Path(__file__).parents[2]
TESTS = """
import pytest
from tests.lab.bounds import at_most

ran = []

@pytest.fixture(scope="module")
def shared():
    ran.append("shared")

@pytest.fixture
def own(shared):
    ran.append("own")

@pytest.mark.measures
def test_quick_at_the_third_time(own):
    at_most(4.0 - ran.count("own"), 1.0, "it")

def test_it_ran_three_times_with_fixtures_of_its_own():
    assert ran == ["shared", "own", "own", "own"]

@pytest.mark.measures
def test_never_quick(own):
    at_most(2.0, 1.0, "this one")

@pytest.mark.measures
def test_wrong(own):
    assert ran.append("wrong")

def test_slow_without_the_mark(own):
    at_most(2.0, 1.0, "that")

def test_how_often_they_ran():
    assert (ran.count("own"), ran.count("wrong")) == (3 + 3 + 1 + 1, 1)
"""


def test_a_bound_with_a_reference_is_the_larger_of_both() -> None:
    def unasked() -> float:
        raise AssertionError

    bounds.at_most_or(1.9, 2.0, 0.5, unasked, "writing")
    bounds.at_most_or(2.9, 2.0, 0.5, lambda: 6.0, "writing")
    with pytest.raises(NotInTime, match=r"writing .the reference took 6.000 s.: 3.100 s, at most 3 s"):
        bounds.at_most_or(3.1, 2.0, 0.5, lambda: 6.0, "writing")
    with pytest.raises(NotInTime, match="at most 2 s"):
        bounds.at_most_or(2.1, 2.0, 0.5, lambda: 1.0, "writing")


def test_references_are_measured() -> None:
    few, many = ("".join(f'a{{b="{number}"}} 1\n' for number in range(size)) for size in (100, 5000))
    assert 0 < references.writing(few) < references.writing(many)
    assert 0 < references.loading_work("sys") < references.loading_work(*references.LIBRARIES)
    assert references.loading("time; time.sleep(0.3)") > 0.3


def test_only_missed_bounds_of_marked_tests_are_measured_again(tmp_path: Path) -> None:
    (tmp_path / "test_bounds.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  measures\n  timeout\n  alone\n")
    options = ("-q", "-p", "no:cacheprovider", "-p", "tests.measuring", "--rootdir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--import-mode=importlib", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert "3 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    again = done.stdout.partition("measured again")[2].partition("short test summary")[0]
    assert again.count("it: 3.000 s, at most 1 s") == 1
    assert again.count("it: 2.000 s, at most 1 s") == 1
    assert again.count("test_never_quick: tests.lab.waiting.NotInTime: this one: 2.000 s") == 2
    assert "test_wrong" not in again and "test_slow" not in again
