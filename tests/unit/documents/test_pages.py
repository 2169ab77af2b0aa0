"""The limits of documents: short decisions, an index of each folder, one line for each change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.documents.documents import ROOT, links, words

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
MEASUREMENTS = sorted(
    path for path in (ROOT / "docs" / "measurements").glob("*.md") if path.name != "README.md"
)
DECISION_WORDS_MAX = 150
ENTRY_CHARACTERS_MAX = 160
COMMAND = re.compile(r"^    (make|cd|cargo|perf|\.venv/bin/python) ", re.MULTILINE)


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_names_problem_choice_and_consequences_in_150_words(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+", page.stem)
    assert text.startswith(f"# {int(page.name[:4])}. ")
    parts = [text.find(f"\n**{part}.** ") for part in ("Problem", "Choice", "Consequences")]
    assert 0 < parts[0] < parts[1] < parts[2]
    assert words(text) <= DECISION_WORDS_MAX


def test_no_two_decisions_have_one_number() -> None:
    numbers = [path.name[:4] for path in DECISIONS]
    assert len(numbers) == len(set(numbers)) > 50


def test_the_index_of_decisions_has_every_decision_under_its_title() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    for page in DECISIONS:
        number, title = page.read_text(encoding="utf-8").splitlines()[0][2:].split(". ", 1)
        assert f"| {number} | [{title}]({page.name}) |" in index


def test_the_index_of_measurements_has_every_page() -> None:
    index = ROOT / "docs" / "measurements" / "README.md"
    assert set(links(index)) >= {page.name for page in MEASUREMENTS}


@pytest.mark.parametrize("page", MEASUREMENTS, ids=lambda page: page.stem)
def test_a_measurement_has_the_command_that_repeats_it(page: Path) -> None:
    assert COMMAND.search(page.read_text(encoding="utf-8"))


def test_the_changelog_has_one_line_for_each_change() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    begin = lines.index("## Unreleased")
    entries = [line for line in lines[begin:] if line and not line.startswith("#")]
    wrong = [line for line in entries if not line.startswith("- ") or len(line) > ENTRY_CHARACTERS_MAX]
    assert entries and not wrong
