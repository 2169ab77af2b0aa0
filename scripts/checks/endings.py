"""What ends something takes every step: `stop` and `close` do not chain the ends of several parts.

If one of them raised, the rest would be skipped. `bridged.endings` takes them all, and reports the errors.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from scripts.checks.sources import Sources

ENDS: Final = frozenset({"stop", "close", "release", "restore", "shutdown", "abort", "close_keys"})
LEFT_OUT: Final = ("tap/", "bridged/protocol/")
"""The TAP library stands alone; the protocol ends memory, and nothing else."""


def check(sources: Sources) -> Iterator[str]:
    """One line for each function that ends several parts one after the other."""
    for file in sources.program():
        if str(file.path).startswith(LEFT_OUT):
            continue
        for node in ast.walk(file.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.strip("_") in ENDS:
                ended = list(_ended(node.body, is_repeated=False))
                if len(ended) > 1:
                    yield (
                        f"{file.path}:{node.lineno}: {node.name} ends {', '.join(ended)}; "
                        "the first that fails skips the rest: use bridged.endings"
                    )


def _ended(body: list[ast.stmt], *, is_repeated: bool) -> Iterator[str]:
    """What is ended in these statements; twice what is ended in a loop. What is below `try` passes."""
    for statement in body:
        if isinstance(statement, ast.For | ast.AsyncFor | ast.While):
            yield from _ended(statement.body, is_repeated=True)
        elif isinstance(statement, ast.If):
            yield from _ended(statement.body, is_repeated=is_repeated)
        elif isinstance(statement, ast.Expr):
            call = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ENDS:
                name = ast.unparse(call.func.value)
                yield from (name, name) if is_repeated else (name,)
