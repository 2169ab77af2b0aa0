"""Every metric family is filled: telemetry names it, and code fills the fields of the snapshot it comes from.

A field that only its default fills would be exported as zeros for ever.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from bridged.catalogue.counters import FAMILIES
from bridged.catalogue.figures import BATCHES
from bridged.telemetry.metrics_table import METRICS
from scripts.checks.sources import PythonFile, Sources

_TABLE: Final = "bridged/telemetry/metrics_table.py"
_TELEMETRY: Final = "bridged/telemetry/"
_SNAPSHOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "bridged/runtime/snapshot.py": (),
    "bridged/dataplane/contract/snapshots.py": ("DataplaneSnapshot", "PeerSnapshot", "PeerCounters"),
}
"""File -> the classes whose fields metrics show; none: all of them."""


def check(sources: Sources) -> Iterator[str]:
    """One line for each family that telemetry does not fill, and for each field that nothing fills."""
    program = sources.program()
    yield from _families(program)
    given = _given(program)
    for file in program:
        if str(file.path) in _SNAPSHOTS:
            yield from _fields(file, _SNAPSHOTS[str(file.path)], given)


def _families(program: Iterable[PythonFile]) -> Iterator[str]:
    named = {
        node.value
        for file in program
        if str(file.path).startswith(_TELEMETRY) and str(file.path) != _TABLE
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    by_catalogue = {f"{family.name}_total" for family in FAMILIES} | {batch.name for batch in BATCHES}
    for row in METRICS:
        if row.name not in named | by_catalogue:
            yield f"{_TABLE}: nothing fills the family `{row.name}`"


def _fields(file: PythonFile, chosen: tuple[str, ...], given: Mapping[str, set[str]]) -> Iterator[str]:
    for node in file.tree.body:
        if not isinstance(node, ast.ClassDef) or (chosen and node.name not in chosen):
            continue
        names = [
            item.target.id
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        ]
        positional = given[f"{node.name}()"]
        for number, name in enumerate(names):
            if name not in given[""] and str(number) not in positional:
                yield f"{file.path}: nothing fills `{name}` of {node.name}"


def _given(program: Iterable[PythonFile]) -> Mapping[str, set[str]]:
    """ "": names of all keyword arguments; "Class()": positions of its positional arguments."""
    given: dict[str, set[str]] = defaultdict(set)
    for file in program:
        for node in ast.walk(file.tree):
            if not isinstance(node, ast.Call):
                continue
            given[""] |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given[f"{name}()"] |= {str(number) for number in range(len(node.args))}
    return given
