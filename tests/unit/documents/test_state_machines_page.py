"""docs/state-machines.md shows what the tables say."""

from __future__ import annotations

from bridged.protocol.session.diagram import PAGE, renewed
from tests.unit.documents.documents import ROOT


def test_the_state_diagrams_are_those_of_the_tables() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert renewed(page) == page, "run: python -m bridged.protocol.session.diagram"
