"""Refuse circular imports between Python modules: `python scripts/python_circles.py PACKAGE…`.

Imports inside functions and under TYPE_CHECKING count, too: a reader of one such module must read them all.
Source: the import graph of grimp, which import-linter uses. Circles of whole packages are refused by
import-linter (pyproject.toml).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping

import grimp

Graph = Mapping[str, Iterable[str]]


def circles(graph: Graph) -> list[frozenset[str]]:
    """Sets of modules that all lead to each other; `graph` names what each module imports."""
    found = []
    rest = set(graph)
    while rest:
        module = min(rest)
        together = {other for other in _reached(graph, module) if module in _reached(graph, other)}
        if together:
            found.append(frozenset(together))
        rest -= together | {module}
    return found


def a_way_round(graph: Graph, circle: frozenset[str]) -> list[str]:
    """A shortest chain of imports from the first module of this circle back to itself."""
    start = min(circle)
    chains = [[start]]
    seen: set[str] = set()
    for chain in chains:
        for imported in sorted(set(graph[chain[-1]]) & circle):
            if imported == start:
                return [*chain, start]
            if imported not in seen:
                seen.add(imported)
                chains.append([*chain, imported])
    raise ValueError("these modules are no circle")


def check(graph: Graph) -> Iterator[str]:
    """One line for each circle."""
    for circle in circles(graph):
        yield f"circular import: {' -> '.join(a_way_round(graph, circle))}"


def read_graph(*packages: str) -> Graph:
    """What each module of these packages imports."""
    first, *further = packages
    graph = grimp.build_graph(first, *further, cache_dir=None, exclude_type_checking_imports=False)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def _reached(graph: Graph, start: str) -> set[str]:
    """Every module to which imports lead from this one; itself only by a circle."""
    reached: set[str] = set()
    open_ends = [start]
    while open_ends:
        for imported in graph.get(open_ends.pop(), ()):
            if imported not in reached:
                reached.add(imported)
                open_ends.append(imported)
    return reached


if __name__ == "__main__":
    findings = list(check(read_graph(*sys.argv[1:])))
    print("\n".join(findings), file=sys.stderr, end="\n" if findings else "")
    sys.exit(1 if findings else 0)
