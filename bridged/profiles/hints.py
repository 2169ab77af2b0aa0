"""Recognises words that cannot be meant: typographic characters, unfilled templates, misspelt directives.

Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final

_TYPOGRAPHIC: Final = re.compile(
    "[\u00a0\u2000-\u200b\u2010-\u201f\u2026\u202f\u2039\u203a\u00ab\u00bb\ufeff]"
)
_MARKERS: Final = r"\{\{.*?\}\}|\{%.*?%\}|%%\w+%%|@[A-Z][A-Z0-9_]*@|<[A-Za-z][A-Za-z0-9_ .-]*>"
_TEMPLATE: Final = re.compile(_MARKERS + r"|\$\{\w+\}|\$[A-Z_][A-Z0-9_]*\b")
_TEMPLATE_OF_COMMAND: Final = re.compile(_MARKERS)


def typographic(words: Sequence[str]) -> str | None:
    """What to do about a character that a web page or word processor put in place of a plain one."""
    found = _TYPOGRAPHIC.search(" ".join(words))
    if found is None:
        return None
    char = found.group()
    name = unicodedata.name(char, "a blank").lower()
    shown = f"{char} " if char.isprintable() else ""
    return (
        f"has the typographic character {shown}(U+{ord(char):04X}, {name}); type the line again with plain "
        "quotes, hyphens and blanks"
    )


def unfilled_template(words: Sequence[str], *, is_command: bool = False) -> str | None:
    """What to do about a place in a template that still has its marker; a command's `$NAME` is none."""
    found = (_TEMPLATE_OF_COMMAND if is_command else _TEMPLATE).search(" ".join(words))
    if found is None:
        return None
    return f"an unfilled template: write the value in place of `{found.group()[:64]}`"


class SpellingHints:
    """Finds which of `known` a misspelt name may mean; for one file.

    Each comparison costs as much as reading hundreds of lines, so only the first names of a file get one.
    """

    COMPARISONS_MAX: Final = 50
    _CHARACTERS_MAX: Final = 64

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = list(known)
        self._found: dict[str, str | None] = {}

    def nearest(self, name: str) -> str | None:
        """The name that is spelt almost like this one; None also for the names after the first ones."""
        name = name[: self._CHARACTERS_MAX]
        if name not in self._found:
            if len(self._found) >= self.COMPARISONS_MAX:
                return None
            close = get_close_matches(name, self._known, n=1, cutoff=0.8)
            self._found[name] = close[0] if close else None
        return self._found[name]
