#!/usr/bin/env python3
"""Refuse circular imports between the modules of a Rust crate: `rust_circles.py CRATE...`.

Counts `use` and paths that begin with `crate::`, `super::`, `self::` or a child module's name; modules and
blocks under `#[cfg(test)]` do not count. Prints each circle; exit status 1 where there is one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

_COMMENT = re.compile(r'//[^\n]*|"(?:\\.|[^"\\\n])*"')
_TEST_CODE = re.compile(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub )?mod (\w+)\s*([;{])")
_CHILD = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?mod (\w+);", re.MULTILINE)
_USE = re.compile(r"\buse\s+([^;]+);")
_PATH = re.compile(r"\b(?:crate|super|self)(?:::\w+)+")
Module = tuple[str, ...]


def modules(source: Path) -> dict[Module, str]:
    """The code of each module of a crate, from its `src`; the crate's root has the empty name."""
    found: dict[Module, str] = {}
    waiting: list[tuple[Module, Path]] = [((), source / "lib.rs")]
    while waiting:
        name, path = waiting.pop()
        code = _without_tests(_COMMENT.sub("", path.read_text(encoding="utf-8")))
        found[name] = code
        home = path.parent if path.name in {"lib.rs", "mod.rs"} else path.with_suffix("")
        for child in _CHILD.findall(code):
            file = home / f"{child}.rs"
            waiting.append(((*name, child), file if file.exists() else home / child / "mod.rs"))
    return found


def imports(name: Module, code: str, known: set[Module]) -> set[Module]:
    """The modules of its crate that a module's code names."""
    paths = [path for tree in _USE.findall(code) for path in _leaves(tree)]
    paths += [path.split("::") for path in _PATH.findall(_USE.sub("", code))]
    targets = (_resolve(name, path, known) for path in paths)
    return {target for target in targets if target is not None and target != name}


def circles(graph: dict[Module, set[Module]]) -> list[list[Module]]:
    """The modules that import each other in a circle, one list for each circle's part of the graph."""
    reach = {start: set(_reachable(start, graph)) for start in graph}
    in_a_circle = [one for one in graph if one in reach[one]]
    parts = {frozenset(other for other in reach[one] if one in reach[other]) for one in in_a_circle}
    return sorted(sorted(part) for part in parts)


def check(crate: Path) -> list[str]:
    """The circles of one crate, each as a line of text."""
    found = modules(crate / "src")
    graph = {name: imports(name, code, set(found)) for name, code in found.items()}
    return [f"{crate.name}: {' <-> '.join(map(_text, circle))}" for circle in circles(graph)]


def _without_tests(code: str) -> str:
    while found := _TEST_CODE.search(code):
        end = found.end() if found[2] == ";" else _end_of_block(code, found.end())
        code = code[: found.start()] + code[end:]
    return code


def _end_of_block(code: str, start: int) -> int:
    depth = 1
    for at in range(start, len(code)):
        depth += {"{": 1, "}": -1}.get(code[at], 0)
        if depth == 0:
            return at + 1
    return len(code)


def _leaves(tree: str) -> Iterator[list[str]]:
    """`a::{b, c::{d, e}}` names `a::b`, `a::c::d` and `a::c::e`."""
    stack: list[list[str]] = []
    path: list[str] = []
    for token in re.findall(r"\w+|[{},*]", tree):
        if token == "{":
            stack.append(path)
        elif token in {",", "}"}:
            yield path
            path = stack.pop() if token == "}" else stack[-1] if stack else []
        else:
            path = [*path, token]
    yield path


def _resolve(name: Module, path: list[str], known: set[Module]) -> Module | None:
    if not path:
        return None
    at = path.index("as") if "as" in path else len(path)
    first, rest = path[0], tuple(path[1:at])
    if first == "crate":
        full = rest
    elif first == "self":
        full = (*name, *rest)
    elif first == "super":
        full = (*name[:-1], *rest)
    elif (*name, first) in known:
        full = (*name, *path[:at])
    else:
        return None
    return next(full[:length] for length in range(len(full), -1, -1) if full[:length] in known)


def _reachable(start: Module, graph: dict[Module, set[Module]]) -> Iterator[Module]:
    waiting, seen = list(graph[start]), set[Module]()
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting.extend(graph[one])
            yield one


def _text(name: Module) -> str:
    return "::".join(name) or "lib.rs"


def main(crates: list[str]) -> int:
    found = [line for crate in crates for line in check(Path(crate))]
    for line in found:
        sys.stderr.write(f"lint: circular imports: {line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
