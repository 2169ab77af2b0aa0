"""State diagrams of the machines, written from their tables into docs/state-machines.md.

`python -m bridged.protocol.session.diagram` renews the part between the two marks. Pure, except for the
command line at the end, which is a tool of the project and not of the daemon.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Final, TypeVar

from bridged.protocol.session.key_state import KEY_TRANSITIONS
from bridged.protocol.session.states import TRANSITIONS

State = TypeVar("State", bound=Enum)
Input = TypeVar("Input", bound=Enum)

BEGIN: Final = "<!-- diagrams: begin (generated) -->"
END: Final = "<!-- diagrams: end -->"
PAGE: Final = Path("docs/state-machines.md")
"""Below the project's folder."""


def mermaid(transitions: Mapping[tuple[State, Input], State]) -> str:
    """One table as a Mermaid state diagram; states by their names, inputs by their values."""
    first = next(iter(transitions))[0]
    rows = [f"    [*] --> {first.name}"]
    rows += [
        f"    {state.name} --> {target.name}: {given.value}" for (state, given), target in transitions.items()
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *rows, "```"])


def diagrams() -> str:
    """The text between the marks, marks included."""
    return (
        f"{BEGIN}\n\nA session (`bridged/protocol/session/states.py`):\n\n{mermaid(TRANSITIONS)}\n\n"
        "One key of a session (`bridged/protocol/session/key_state.py`):\n\n"
        f"{mermaid(KEY_TRANSITIONS)}\n\n{END}"
    )


def renewed(page: str) -> str:
    """The page with new diagrams.

    Raises:
        ValueError: the page lacks one of the marks.
    """
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page has no part between {BEGIN} and {END}")
    return before + diagrams() + after


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(renewed(target.read_text()))
