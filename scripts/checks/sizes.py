"""Files of at most 600 lines, functions of at most 60."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from scripts.checks.sources import Sources

FILE_LINES: Final = 600
FUNCTION_LINES: Final = 60


def check(sources: Sources) -> Iterator[str]:
    """One line for each file and function that is too long; tests and scripts count, too."""
    texts = [(file.path, file.text) for file in sources.python]
    for path, text in [*texts, *((file.path, file.text) for file in sources.rust)]:
        lines = text.count("\n")
        if lines > FILE_LINES:
            yield f"{path}: {lines} lines; at most {FILE_LINES}"
    for path, name, first, lines in _functions(sources):
        if lines > FUNCTION_LINES:
            yield f"{path}:{first}: {name} has {lines} lines; at most {FUNCTION_LINES}"


def _functions(sources: Sources) -> Iterator[tuple[PurePosixPath, str, int, int]]:
    for file in sources.python:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                last = node.end_lineno or node.lineno
                yield file.path, node.name, node.lineno, last - node.lineno + 1
    for rust in sources.rust:
        for name, first, lines in rust.functions():
            yield rust.path, name, first, lines
