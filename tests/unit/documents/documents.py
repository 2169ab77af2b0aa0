"""Finds the documents of the repository, their headings, anchors and links."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = (".py", ".pyi", ".rs", ".toml", ".sh", ".yaml")

_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_ANCHOR = re.compile(r'<a id="([^"]+)">')
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def tracked(*endings: str) -> list[Path]:
    """The files of the repository that end so; new ones that git does not ignore, too."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    paths = (ROOT / name for name in listed.split("\0") if name.endswith(endings))
    return [path for path in paths if path.is_file()]


def pages() -> list[Path]:
    return tracked(".md")


def links(page: Path) -> list[str]:
    """The targets of a page's links, as they are written."""
    return _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """What may stand behind `#` in a link to this page, as GitHub makes it from headings."""
    text = page.read_text(encoding="utf-8")
    return {_slug(heading) for heading in _HEADING.findall(_CODE.sub("", text))} | set(_ANCHOR.findall(text))


def _slug(heading: str) -> str:
    kept = "".join(char for char in heading.lower() if char.isalnum() or char in " -_")
    return kept.replace(" ", "-")


def words(text: str) -> int:
    return len(text.split())
