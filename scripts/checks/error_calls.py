"""Where the package's errors are made, and with which code."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from scripts.checks.sources import PythonFile

ROOT: Final = "BridgedError"


@dataclass(frozen=True, slots=True)
class ErrorCall:
    """An error with a literal code."""

    path: PurePosixPath
    line: int
    error: str
    code: str


@dataclass(slots=True)
class _Error:
    """A class of the tree; `parameters` of its own `__init__`, None where it has none."""

    bases: list[str]
    parameters: list[str] | None = None


def error_calls(files: Iterable[PythonFile]) -> Iterator[ErrorCall]:
    """Each call of an error's class, or of its base's `__init__`, whose code is a literal."""
    files = tuple(files)
    tree = _tree(files)
    for file in files:
        yield from _in(file, file.tree, None, tree)


def _tree(files: Iterable[PythonFile]) -> dict[str, _Error]:
    """The root and all classes below it, by name."""
    classes = {
        node.name: node for file in files for node in ast.walk(file.tree) if isinstance(node, ast.ClassDef)
    }
    found = {name: _error_of(node) for name, node in classes.items()}
    return {name: error for name, error in found.items() if _descends(name, found)}


def _error_of(node: ast.ClassDef) -> _Error:
    error = _Error([base.id for base in node.bases if isinstance(base, ast.Name)])
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            error.parameters = [argument.arg for argument in item.args.args[1:]]
    return error


def _descends(name: str, classes: dict[str, _Error]) -> bool:
    return name == ROOT or any(
        _descends(base, classes) for base in (classes[name].bases if name in classes else ())
    )


def _parameters(name: str, tree: dict[str, _Error]) -> list[str]:
    while name in tree:
        parameters = tree[name].parameters
        if parameters is not None:
            return parameters
        name = next((base for base in tree[name].bases if base in tree), "")
    return []


def _in(file: PythonFile, node: ast.AST, inside: str | None, tree: dict[str, _Error]) -> Iterator[ErrorCall]:
    for child in ast.iter_child_nodes(node):
        here = child.name if isinstance(child, ast.ClassDef) else inside
        if isinstance(child, ast.Call) and (name := _called(child, inside, tree)):
            code = _code(child, _parameters(name, tree))
            if code is not None:
                yield ErrorCall(file.path, child.lineno, name, code)
        yield from _in(file, child, here, tree)


def _called(call: ast.Call, inside: str | None, tree: dict[str, _Error]) -> str | None:
    """The error that this call makes, or whose `__init__` it calls from a class below it."""
    if isinstance(call.func, ast.Name):
        return call.func.id if call.func.id in tree else None
    is_init = isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "super().__init__"
    if not is_init or inside not in tree:
        return None
    return next((base for base in tree[inside].bases if base in tree), None)


def _code(call: ast.Call, parameters: list[str]) -> str | None:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    given |= dict(zip(parameters, call.args, strict=False))
    value = given.get("code")
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
