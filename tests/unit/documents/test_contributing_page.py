"""CONTRIBUTING.md names only what exists: files, and the names in its recipes."""

from __future__ import annotations

import re

import pytest

from tests.unit.documents.documents import ROOT, tracked

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RULES = PAGE.partition("\n## Plain English\n")[0]
EXAMPLES = {"backlog_frames", "padded", "Padded", "frames_per_tap_read", "FramesPerTapRead"}
"""What its recipes add."""
MADE = {"build/interop-matrix.md"}
"""What tests write."""
CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
PATH = re.compile(r"[\w./-]+/[\w./-]+")
NAME = re.compile(r"[A-Za-z_]\w{3,}")
STRING = re.compile(r'"([^"]*)"')


def quoted() -> list[str]:
    return [block or word for block, word in CODE.findall(RULES)]


def names() -> list[str]:
    """Every name in a piece of code of the rules, but for commands and paths."""
    found: set[str] = set()
    for code in quoted():
        if not PATH.fullmatch(code) and not code.startswith(("make ", "bash ", "python ")):
            plain = STRING.sub(lambda match: "" if " " in match[1] else match[1], code)
            found.update(NAME.findall(plain))
    return sorted(found - EXAMPLES)


@pytest.mark.parametrize("path", sorted({code for code in quoted() if PATH.fullmatch(code)} - MADE))
def test_every_path_that_the_page_names_exists(path: str) -> None:
    shortened = [ROOT / path, *(ROOT / folder / path for folder in ("bridged", "tests", "native/worker/src"))]
    assert any(
        one.exists() or one.with_suffix(".py").exists() or one.with_suffix(".rs").exists()
        for one in shortened
    )


def test_every_name_in_the_recipes_is_a_name_of_the_code() -> None:
    files = [*tracked(".py", ".rs", ".sh", ".toml", ".yaml"), ROOT / "Makefile"]
    code = "\n".join(
        file.read_text(encoding="utf-8") for file in files if file.name != "test_contributing_page.py"
    )
    known = set(NAME.findall(code))
    assert names() and [name for name in names() if name not in known] == []
