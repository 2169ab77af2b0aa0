"""As much of Rust as the checks need: where functions and test modules begin and end, and what is code.

No parser: comments and literals are blanked, and braces counted in what is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<comment>//[^\n]*|/\*)
    | (?P<raw>\bb?r(?P<hashes>\#*)")
    | (?P<text>b?"(?:[^"\\]|\\.)*")
    | (?P<char>b?'(?:[^'\\\n]|\\[^\n]{1,10}?)')
    """,
    re.VERBOSE | re.DOTALL,
)
_FUNCTION: Final = re.compile(r"\bfn\s+([A-Za-z_]\w*)")
_TEST_PART: Final = re.compile(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]\s*(?:#\[[^\]]*\]\s*)*")
_TEST_NAMES: Final = re.compile(r"(_tests|^tests|^test_\w+|^models)\.rs$")


@dataclass(frozen=True)
class RustFile:
    """`path` counts from the project's folder."""

    path: PurePosixPath
    text: str

    @property
    def is_test(self) -> bool:
        folders = {"tests", "benches", "fuzz", "examples"}
        return not folders.isdisjoint(self.path.parts) or bool(_TEST_NAMES.search(self.path.name))

    @cached_property
    def code(self) -> str:
        """The text with comments and the insides of literals blanked; every line stays where it is."""
        return "".join(_blanked(self.text))

    @cached_property
    def program(self) -> str:
        """`code` without what only tests have: items under `#[cfg(test)]`."""
        code = self.code
        for found in reversed(list(_TEST_PART.finditer(code))):
            end = _end_of_item(code, found.end())
            code = code[: found.start()] + _blank(code[found.start() : end]) + code[end:]
        return code

    @cached_property
    def literals(self) -> frozenset[str]:
        """Plain string literals outside of tests."""
        found = set()
        for token in _TOKEN.finditer(self.text):
            if token["text"] and self.program[token.start()] == '"':
                found.add(token["text"][1:-1])
        return frozenset(found)

    def functions(self) -> Iterator[tuple[str, int, int]]:
        """Name, first line (from 1) and number of lines of each function with a body."""
        for found in _FUNCTION.finditer(self.code):
            end = _end_of_item(self.code, found.end())
            if self.code[end - 1] == "}":
                first = self.code.count("\n", 0, found.start()) + 1
                yield found[1], first, self.code.count("\n", found.start(), end) + 1


def _blanked(text: str) -> Iterator[str]:
    position = 0
    while found := _TOKEN.search(text, position):
        yield text[position : found.start()]
        end = found.end()
        if found["comment"] == "/*":
            end = _end_of_comment(text, end)
        elif found["raw"]:
            closing = text.find('"' + found["hashes"], end)
            end = len(text) if closing < 0 else closing + 1 + len(found["hashes"])
        inside = text[found.start() : end]
        yield _blank(inside) if found["comment"] else inside[0] + _blank(inside[1:-1]) + inside[-1]
        position = end
    yield text[position:]


def _end_of_comment(text: str, position: int) -> int:
    """After the `*/` that ends a block comment; they nest."""
    depth = 1
    for found in re.compile(r"/\*|\*/").finditer(text, position):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return len(text)


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _end_of_item(code: str, position: int) -> int:
    """After the `;` or the closing brace that ends the item which goes on at `position`."""
    depth = 0
    for index in range(position, len(code)):
        if code[index] in "([{":
            depth += 1
        elif code[index] in ")]}":
            depth -= 1
            if depth == 0 and code[index] == "}":
                return index + 1
        elif code[index] == ";" and depth == 0:
            return index + 1
    return len(code)
