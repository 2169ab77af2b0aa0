"""ARCHITECTURE.md is short, and every file and function of its six ways exists, in the order of the code."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

import pytest

from tests.unit.documents.documents import ROOT, words

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
WORDS_MAX = 1200
WAYS = ("A frame out", "A frame in", "A control packet", "A configuration key", "A counter", "A reload")
PATH = re.compile(r"`((?:bridged|native|tests|tap|docs|scripts)/[\w./-]+)`")
ROW = re.compile(r"^\d+\. [^\[]+: \[[^]]+\]\(([^)]+)\) ((?:`\w+`(?:, )?)+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    way: str
    file: str
    functions: tuple[str, ...]

    def lines(self) -> list[int]:
        """Where the functions (types, constants) begin in the file; 0 for one that is not there."""
        text = (ROOT / self.file).read_text(encoding="utf-8").splitlines()
        return [_line_of(name, text) for name in self.functions]


def _line_of(name: str, lines: list[str]) -> int:
    begins = re.compile(
        rf"\s*(?:(?:pub(?:\(\w+\))? )?(?:fn|struct|enum|trait|const|static)|(?:async )?def|class) {name}\b"
        rf"|{name}\b[^=(]*="
    )
    return next((number for number, line in enumerate(lines, start=1) if begins.match(line)), 0)


def steps() -> list[Step]:
    found = []
    for way in WAYS:
        section = PAGE.partition(f"### {way}\n")[2].partition("\n#")[0]
        for file, functions in ROW.findall(section):
            found.append(Step(way, file, tuple(re.findall(r"`(\w+)`", functions))))
    return found


def test_the_page_is_read_in_ten_minutes() -> None:
    assert words(PAGE) <= WORDS_MAX


def test_each_of_the_six_ways_has_its_steps_and_no_row_is_passed_over() -> None:
    counts = {way: sum(step.way == way for step in steps()) for way in WAYS}
    assert all(count >= 3 for count in counts.values()), counts
    rows = [line for line in PAGE.splitlines() if re.match(r"\d+\. ", line)]
    assert len(rows) == len(steps())


@pytest.mark.parametrize("step", steps(), ids=lambda step: f"{step.way}: {step.functions[0]}")
def test_the_functions_of_a_step_are_in_its_file(step: Step) -> None:
    missing = [name for name, line in zip(step.functions, step.lines(), strict=True) if not line]
    assert missing == [], step.file


@pytest.mark.parametrize("way", WAYS)
def test_a_way_passes_each_file_from_its_top_to_its_end(way: str) -> None:
    last: dict[str, int] = {}
    for step in (step for step in steps() if step.way == way):
        for name, line in zip(step.functions, step.lines(), strict=True):
            assert line >= last.get(step.file, 0), f"{name} stands above the step before, in {step.file}"
            last[step.file] = line


def test_the_floors_are_those_that_import_linter_holds() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(one["layers"] for one in settings["contracts"] if one.get("containers") == ["bridged"])
    text = " ".join(PAGE.split()).partition("import-linter holds it: ")[2]
    assert text.startswith(" → ".join(f"`{layer}`" for layer in layers) + ".")
    house = PAGE.partition("## The house\n")[2].partition("\n## ")[0]
    rooms = {room for layer in layers for room in layer.split(" | ")}
    assert rooms <= set(re.findall(r"`(\w+)`", house.partition("Imports point")[0]))


def test_every_path_that_the_page_names_exists() -> None:
    assert [path for path in PATH.findall(PAGE) if not (ROOT / path).exists()] == []


def test_a_function_that_does_not_exist_is_found() -> None:
    assert Step("", "bridged/files.py", ("write_atomic", "write_somehow")).lines()[1] == 0
