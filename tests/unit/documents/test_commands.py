"""Commands of the Makefile and of the bench that documents name: they exist, with these options."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.bench import run as bench
from tests.unit.documents.documents import ROOT, pages

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MAKE = re.compile(r"(?:^    |`)make ([a-z-]+)", re.MULTILINE)
BENCH = re.compile(r'make bench BENCH="([^"]*)"')
PYTEST = re.compile(r"-m pytest ((?:tests/\S+ ?)+)")
MODULE = re.compile(r"-m (tests\.[\w.]+)")

TEXTS = {page.relative_to(ROOT): page.read_text(encoding="utf-8") for page in pages()}
BENCHES = sorted({arguments for text in TEXTS.values() for arguments in BENCH.findall(text)})


def test_every_target_that_a_page_names_exists() -> None:
    named = {(str(page), target) for page, text in TEXTS.items() for target in MAKE.findall(text)}
    assert len(named) > 20
    assert [pair for pair in sorted(named) if pair[1] not in TARGETS] == []


@pytest.mark.parametrize("arguments", BENCHES)
def test_every_bench_that_a_page_names_has_options_that_exist(arguments: str) -> None:
    chosen = bench.parse(shlex.split(arguments))
    assert chosen.measure


def test_a_bench_option_that_does_not_exist_is_found() -> None:
    with pytest.raises(SystemExit):
        bench.parse(["--measure", "nothing_of_the_kind"])


def test_tests_and_programs_that_a_page_runs_exist() -> None:
    text = "\n".join(TEXTS.values())
    files = [name for names in PYTEST.findall(text) for name in names.split()]
    files += [name.replace(".", "/") + ".py" for name in MODULE.findall(text)]
    assert files and [name for name in files if not (ROOT / name).is_file()] == []


def test_every_measured_figure_of_the_readme_has_its_command() -> None:
    readme = TEXTS[(ROOT / "README.md").relative_to(ROOT)]
    table = readme.split("| repeat it |")[1].split("\n\n")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and "---" not in row]
    assert len(rows) >= 5 and all("`make " in row for row in rows)
