"""Links and references in documents and sources lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.documents.documents import ROOT, SOURCES, anchors, links, pages, tracked

ELSEWHERE = ("http://", "https://", "mailto:")
REFERENCE = re.compile(r"\bdocs/[\w./-]+\.md(?:#[\w-]+)?")
SECTION = re.compile(r"(?<![\w/])(control|data)\.md#([\d-]*\d)")
DECISION = re.compile(r"\bdecisions? ((?:\d+(?:, | and )?)+)|docs/decisions/(\d{4})", re.IGNORECASE)


def dead(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    if not file.exists():
        return True
    return bool(anchor) and file.suffix == ".md" and anchor not in anchors(file)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_an_anchor_that_exist(page: Path) -> None:
    found = [target for target in links(page) if not target.startswith(ELSEWHERE) and dead(page, target)]
    assert not found


def test_a_link_to_a_missing_file_or_anchor_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '# One thing\n\n<a id="other"></a>\n[a](#one-thing) [b](#other) [c](#missing) [d](gone.md)\n'
    )
    assert [target for target in links(page) if dead(page, target)] == ["#missing", "gone.md"]


def test_every_page_is_reached_from_the_readme() -> None:
    todo, seen = [ROOT / "README.md"], {ROOT / "README.md"}
    while todo:
        page = todo.pop()
        for target in links(page):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.is_dir():
                file /= "README.md"
            if file.suffix == ".md" and file.is_file() and file not in seen:
                seen.add(file)
                todo.append(file)
    assert not [str(page.relative_to(ROOT)) for page in pages() if page not in seen]


def test_every_page_and_anchor_that_a_source_names_exists() -> None:
    missing = []
    for file in tracked(*SOURCES):
        if file == Path(__file__):
            continue
        text = file.read_text(encoding="utf-8")
        named = [
            *REFERENCE.findall(text),
            *(f"docs/protocol/{page}.md#{n}" for page, n in SECTION.findall(text)),
        ]
        missing += [f"{file.relative_to(ROOT)}: {one}" for one in named if dead(ROOT / "README.md", one)]
    assert not missing


def test_every_decision_that_a_source_or_page_names_has_its_page() -> None:
    known = {int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}
    missing = []
    for file in tracked(*SOURCES, ".md"):
        for found in DECISION.findall(file.read_text(encoding="utf-8")):
            numbers = {int(number) for number in re.findall(r"\d+", " ".join(found))}
            missing += [f"{file.relative_to(ROOT)}: decision {number}" for number in numbers - known]
    assert not missing
