"""Nothing public is there for tests alone: functions, classes, constants and members have a user.

Names are compared, not types: two things of one name vouch for each other. A use inside a function of the
same name is delegation and does not count. Left out are fields of classes, members of `IntEnum` and `IntFlag`
(names of numbers that somebody else chose), functions with an unknown decorator, and methods of classes with
a base from elsewhere, because a framework may call them.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from scripts.checks.sources import PythonFile, Sources

LIBRARIES: Final = ("tap/",)
"""Folders whose public names are for other programs."""

_PLAIN_DECORATORS: Final = {
    *("property", "setter", "cached_property", "staticmethod", "classmethod", "contextmanager", "cache"),
    *("asynccontextmanager", "lru_cache", "dataclass", "final", "abstractmethod", "override", "overload"),
}
_ENUMS: Final = {"Enum", "StrEnum"}
_PLAIN_BASES: Final = {*_ENUMS, "ABC", "Protocol", "Exception", "NamedTuple", "BaseModel", "Generic"}
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_RUST_ITEM: Final = re.compile(
    r"\bpub(?:\([^)]*\))?\s+(?:const\s+|unsafe\s+|async\s+)*"
    r"(?:fn|struct|enum|trait|const|static|type)\s+(?:mut\s+)?([A-Za-z_]\w*)"
)
_RUST_DEFINITION: Final = re.compile(
    r"\b(?:fn|struct|enum|trait|const|static|type)\s+(?:mut\s+)?([A-Za-z_]\w*)"
)


@dataclass(frozen=True, slots=True)
class _Public:
    path: PurePosixPath
    line: int
    name: str
    shown: str


def check(sources: Sources) -> Iterator[str]:
    """One line for each public thing that only tests use."""
    for found in _unused(sources):
        yield f"{found.path}:{found.line}: {found.shown} is used by tests only; remove it, or use it"


def _unused(sources: Sources) -> Iterator[_Public]:
    program = sources.program()
    uses = Counter(name for file in program for name in _uses(file.tree, frozenset()))
    own = {node.name for file in program for node in ast.walk(file.tree) if isinstance(node, ast.ClassDef)}
    for file in program:
        if not str(file.path).startswith(LIBRARIES):
            yield from (found for found in _public(file, own) if not uses[found.name])
    yield from _unused_rust(sources)


def _uses(node: ast.AST, inside: frozenset[str]) -> Iterator[str]:
    """Names and attributes that are read, but for those inside something of the same name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _uses(child, inside | {child.name})
            continue
        name = ""
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load):
            name = child.id
        elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Load):
            name = child.attr
        if name and name not in inside:
            yield name
        yield from _uses(child, inside)


def _public(file: PythonFile, own: Iterable[str]) -> Iterator[_Public]:
    for node in file.tree.body:
        if isinstance(node, ast.ClassDef):
            yield from _public_class(file, node, frozenset(own))
        else:
            yield from _item(file, node, "")


def _public_class(file: PythonFile, node: ast.ClassDef, own: frozenset[str]) -> Iterator[_Public]:
    bases = {name if (name := _last_name(base)) in own else _dotted(base) for base in node.bases}
    if not node.name.startswith("_"):
        yield _Public(file.path, node.lineno, node.name, node.name)
    if not bases <= own | _PLAIN_BASES:
        return
    for item in node.body:
        is_field = isinstance(item, ast.Assign | ast.AnnAssign) and not bases & _ENUMS
        if not is_field:
            yield from _item(file, item, f"{node.name}.")


def _item(file: PythonFile, node: ast.stmt, prefix: str) -> Iterator[_Public]:
    names: list[str] = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if all(_last_name(decorator) in _PLAIN_DECORATORS for decorator in node.decorator_list):
            names = [node.name]
    elif isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        names = [node.target.id]
    for name in names:
        if not name.startswith("_"):
            yield _Public(file.path, node.lineno, name, prefix + name)


def _dotted(node: ast.expr) -> str:
    """`asyncio.Protocol` is another base than `Protocol`."""
    return ast.unparse(node.value if isinstance(node, ast.Subscript) else node)


def _last_name(node: ast.expr) -> str:
    """`c` of `a.b.c(…)[…]`."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)


def _unused_rust(sources: Sources) -> Iterator[_Public]:
    files = [file for file in sources.rust if not file.is_test]
    words = Counter(word for file in files for word in _WORD.findall(file.program))
    defined = Counter(name for file in files for name in _RUST_DEFINITION.findall(file.program))
    for file in files:
        for found in _RUST_ITEM.finditer(file.program):
            if words[found[1]] <= defined[found[1]]:
                line = file.program.count("\n", 0, found.start()) + 1
                yield _Public(file.path, line, found[1], found[1])
