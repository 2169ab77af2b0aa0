"""One public type, one name: no two modules define a class or an alias of a type by the same name.

Left out are private names, native's crate `py`, which names what it mirrors, and `bridged-tap`, which is a
distribution of its own. Both builds of the data plane may use one word for one thing.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from scripts.checks.sources import Sources

LIBRARY: Final = "tap"
BINDINGS: Final = "native/py/"
_TYPE_NAME: Final = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
_RUST_TYPE: Final = re.compile(r"^\s*pub(?:\(crate\))? (?:struct|enum|trait|type) (\w+)", re.MULTILINE)


def check(sources: Sources) -> Iterator[str]:
    """One line for each name that stands for two types."""
    for places in (_python(sources), _rust(sources)):
        for name, where in sorted(places.items()):
            if len(where) > 1:
                yield f"{where[0]}: {name} is also the name of a type in {', '.join(where[1:])}; rename one"


def _python(sources: Sources) -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for file in sources.program():
        if file.path.parts[0] == LIBRARY:
            continue
        for node in file.tree.body:
            name = _name_of(node)
            if _TYPE_NAME.fullmatch(name):
                places[name].append(f"{file.path}:{node.lineno}")
    return places


def _name_of(node: ast.stmt) -> str:
    """Of a class or an alias; empty: it is neither. A `TypeVar` is no type by itself."""
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return "" if ast.unparse(node.value).startswith("TypeVar(") else node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return ""


def _rust(sources: Sources) -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for file in sources.rust:
        if file.is_test or str(file.path).startswith(BINDINGS):
            continue
        for found in _RUST_TYPE.finditer(file.program):
            line = file.program.count("\n", 0, found.start()) + 1
            places[found[1]].append(f"{file.path}:{line}")
    return places
