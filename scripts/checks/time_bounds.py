"""A busy machine fails no test: tests hold upper bounds of times where they can be measured again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from scripts.checks.sources import PythonFile, Sources

CLOCKS: Final = frozenset({"monotonic", "perf_counter", "now", "time"})
BOUNDS: Final = frozenset({"at_least", "at_most", "at_most_or", "takes_at_most"})
MARK: Final = "measures"


def check(sources: Sources) -> Iterator[str]:
    """One line for each bound that an `assert` holds, and for each test with a bound and without the mark."""
    for file in sources.python:
        if file.is_test:
            yield from _bare_bounds(file)
            yield from _unmarked_tests(file)


def _bare_bounds(file: PythonFile) -> Iterator[str]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Assert) and any(map(_bounds_a_time, ast.walk(node.test))):
            yield (
                f"{file.path}:{node.lineno}: an upper bound of a time fails on a busy machine; hold it by "
                f"`at_most` (tests/lab/bounds.py), and mark the test `{MARK}`"
            )


def _bounds_a_time(node: ast.AST) -> bool:
    """Whether it says `<clock>() - … < …`."""
    if not isinstance(node, ast.Compare):
        return False
    values = [node.left, *node.comparators]
    return any(
        isinstance(operator, ast.Lt | ast.LtE) and any(map(_is_elapsed, ast.walk(value)))
        for value, operator in zip(values, node.ops, strict=False)
    )


def _is_elapsed(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub)
        and isinstance(node.left, ast.Call)
        and _name_of(node.left.func) in CLOCKS
    )


def _unmarked_tests(file: PythonFile) -> Iterator[str]:
    if any(isinstance(node, ast.Assign) and f"mark.{MARK}" in ast.unparse(node) for node in file.tree.body):
        return
    for node in file.tree.body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        if any(f"mark.{MARK}" in ast.unparse(one) for one in node.decorator_list):
            continue
        calls = (found for found in ast.walk(node) if isinstance(found, ast.Call))
        if any(_name_of(call.func) in BOUNDS for call in calls):
            yield f"{file.path}:{node.lineno}: {node.name} bounds a time; mark it `{MARK}`"


def _name_of(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]
