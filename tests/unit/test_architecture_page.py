"""ARCHITECTURE.md shows what the tables say."""

from __future__ import annotations

from pathlib import Path

from bridged.protocol.session.diagram import renewed

PAGE = Path(__file__).parents[2] / "ARCHITECTURE.md"


def test_the_state_diagrams_are_those_of_the_tables() -> None:
    page = PAGE.read_text()
    assert renewed(page) == page, "run: python -m bridged.protocol.session.diagram ARCHITECTURE.md"
