"""The commands of the guides: fenced blocks of `sh`, whose second word says where they are run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.unit.documents.documents import ROOT

GUIDES = ROOT / "docs" / "guides"
FENCE = re.compile(r"^```(\w+)(?: ([\w-]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """`kind`: sh, yaml or text. `place`: whose terminal; a test has no `reader` and no `…-systemd`."""

    kind: str
    place: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines, with those that end in a backslash joined to the next."""
        return [line.strip() for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(page: Path) -> list[Block]:
    """In the order of the page."""
    return [Block(*match.groups(default="")) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]


def guide(name: str) -> list[Block]:
    """The blocks of a guide, by the name of its file without the ending."""
    return blocks(GUIDES / f"{name}.md")
