"""What became of each directive of a file.

Pure values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bridged.errors import ConfigurationError
from bridged.profiles.profile import Notice
from bridged.protocol.text import visible

Treatment = Literal["taken", "changed", "not needed", "refused"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A directive that was read, and what the table says of it in general."""

    line: int
    name: str
    verdict: Treatment


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one directive. `line` 0: the whole file. `name` and `text` are safe to print."""

    line: int
    name: str
    verdict: Treatment
    text: str = ""

    def __str__(self) -> str:
        """Such as `comp-lzo: refused: compression …`; without line."""
        return ": ".join(part for part in (self.name, self.verdict, self.text) if part)


def outcomes(
    seen: Iterable[Seen], notices: Sequence[Notice], errors: Sequence[ConfigurationError]
) -> list[Outcome]:
    """One outcome for each directive in the order of lines, then what concerns the whole file."""
    texts: dict[tuple[int, str], list[str]] = {}
    for notice in notices:
        texts.setdefault((notice.line, notice.directive), []).append(notice.reason)
    reasons = {(error.line or 0, error.key): error.reason for error in errors}
    found: dict[tuple[int, str], Outcome] = {}
    for one in seen:
        place = (one.line, one.name)
        text = visible("; ".join(texts.pop(place, ())))
        verdict: Treatment = "changed" if text and one.verdict == "taken" else one.verdict
        if verdict == "not needed":
            text = text.removeprefix("ignored: ")
        if place in reasons:
            verdict, text = "refused", visible(reasons.pop(place))
        found[place] = Outcome(one.line, visible(one.name), verdict, text)
    rest = [Outcome(line, name, "changed", "; ".join(parts)) for (line, name), parts in texts.items()]
    rest += [Outcome(line, visible(name), "refused", visible(why)) for (line, name), why in reasons.items()]
    return sorted((*found.values(), *rest), key=lambda one: one.line or 1 << 30)
