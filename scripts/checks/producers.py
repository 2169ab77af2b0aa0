"""Code produces each value in the catalogue, and raises no error code that the catalogue lacks.

A literal in a comparison or a docstring produces nothing. Native code produces a drop reason by its variant
of the enum `Reason`, or by a literal in `core` that `Reason::named` looks up.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from bridged.catalogue import counters, figures
from bridged.catalogue.error_codes import ERROR_CODES
from scripts.checks.error_calls import error_calls
from scripts.checks.sources import PythonFile, Sources

_CATALOGUE: Final = "bridged/catalogue/"
_DIRECTIONS: Final = ("receive", "transmit")
GENERATED: Final = "//! Generated from bridged/catalogue/"
_FOLDERS: Final[Mapping[counters.CountSource, tuple[str, ...]]] = {
    "portable": (
        "bridged/dataplane/",
        "bridged/protocol/keys/",
        "bridged/protocol/packets/",
        "bridged/protocol/strangers/",
    ),
    "control": ("bridged/protocol/", "bridged/runtime/", "bridged/tls/"),
}
_OTHER_TABLES: Final[Mapping[str, Iterable[str]]] = {
    "handshake outcome": counters.HANDSHAKE_OUTCOMES,
    "reason of a disconnect": counters.DISCONNECT_REASONS,
    "trigger of a renegotiation": counters.RENEGOTIATION_TRIGGERS,
    "MAC conflict": counters.MAC_CONFLICTS,
    "host warning": counters.HOST_WARNINGS,
    "outcome of a reload": counters.RELOAD_OUTCOMES,
    "outcome of a revocation list": counters.CRL_OUTCOMES,
    "repair of a link": counters.REPAIRS,
    "event of a packet sequence": counters.SEQUENCE_EVENTS,
    "stage of an admission": counters.ADMISSION_STAGES,
    "phase of a handshake": counters.HANDSHAKE_PHASES,
}


def check(sources: Sources) -> Iterator[str]:
    """One line for each value without code, and for each unknown error code."""
    yield from _drop_reasons(sources)
    yield from _unknown_drops(sources)
    yield from _counts(sources)
    everywhere = _produced(sources.program(), ("",))
    for table, values in _OTHER_TABLES.items():
        for value in values:
            if value not in everywhere:
                yield f"{_CATALOGUE}counters.py: nothing produces the {table} `{value}`"
    in_any_build = everywhere | _native_literals(sources)
    for value in {cause for _, cause in figures.OFFLOAD_FALLBACKS}:
        if value not in in_any_build:
            yield f"{_CATALOGUE}figures.py: nothing produces the cause `{value}`"
    yield from _figures(sources)
    yield from _error_codes(sources, everywhere)


def _drop_reasons(sources: Sources) -> Iterator[str]:
    produced = {source: _produced(sources.program(), folders) for source, folders in _FOLDERS.items()}
    program = _native(sources)
    in_core = {
        text for file in sources.rust if str(file.path).startswith("native/core/") for text in file.literals
    }
    for reason in counters.DROP_REASONS:
        has_variant = f"Reason::{_camel(reason.name)}" in program
        makers: dict[counters.CountSource, bool] = {
            **{source: reason.name in names for source, names in produced.items()},
            "native": has_variant or reason.name in in_core,
        }
        for source in sorted(reason.sources):
            if not makers[source]:
                yield f"{_CATALOGUE}counters.py: {source} code never drops for `{reason.name}`"


def _unknown_drops(sources: Sources) -> Iterator[str]:
    """Drops counted under a name without a row: `count("receive", "fun")`, `drops["receive", "fun"]`."""
    known = {*_DIRECTIONS, *(reason.name for reason in counters.DROP_REASONS)}
    for file in sources.program():
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Call):
                values = node.args
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
                values = node.slice.elts
            else:
                continue
            words = [value.value for value in values[:2] if isinstance(value, ast.Constant)]
            if (
                words[:1]
                and words[0] in _DIRECTIONS
                and isinstance(words[-1], str)
                and words[-1] not in known
            ):
                yield f"{file.path}:{node.lineno}: counters.py has no drop reason `{words[-1]}`"


def _counts(sources: Sources) -> Iterator[str]:
    portable = _produced(sources.program(), _FOLDERS["portable"])
    program, native = _native(sources), _native_literals(sources)
    for count in counters.COUNTS:
        has_native = f"Count::{_camel(count.name)}" in program if count.by_threads else count.name in native
        makers: dict[counters.CountSource, bool] = {"portable": count.name in portable, "native": has_native}
        for source in sorted(count.sources):
            if not makers[source]:
                yield f"{_CATALOGUE}counters.py: {source} code never counts `{count.name}`"


def _figures(sources: Sources) -> Iterator[str]:
    portable, program = _produced(sources.program(), _FOLDERS["portable"]), _native(sources)
    tables: tuple[tuple[str, Sequence[figures.Figure]], ...] = (
        ("OffloadName", figures.OFFLOADS),
        ("QueueName", figures.QUEUES),
        ("BatchName", figures.BATCHES),
    )
    for enum, table in tables:
        for figure in table:
            makers: dict[counters.CountSource, bool] = {
                "portable": figure.name in portable,
                "native": f"{enum}::{_camel(figure.name)}" in program,
            }
            for source in sorted(figure.sources):
                if not makers[source]:
                    yield f"{_CATALOGUE}figures.py: {source} code never shows `{figure.name}`"


def _error_codes(sources: Sources, everywhere: Collection[str]) -> Iterator[str]:
    known = {code.name for code in ERROR_CODES}
    known |= {reason.name for reason in counters.DROP_REASONS} | set(counters.HANDSHAKE_OUTCOMES)
    for call in error_calls(sources.program()):
        if call.code not in known:
            yield f"{call.path}:{call.line}: error_codes.py lacks `{call.code}` of this {call.error}"
    native = _native_literals(sources)
    for code in ERROR_CODES:
        if code.name not in everywhere and code.name not in native:
            yield f"{_CATALOGUE}error_codes.py: nothing raises `{code.name}`"


def _native(sources: Sources) -> str:
    """Native code, but for tests and for what is generated from the tables themselves."""
    written = (file for file in sources.rust if not file.text.startswith(GENERATED))
    return "\n".join(file.program for file in written if not file.is_test)


def _native_literals(sources: Sources) -> set[str]:
    written = (file for file in sources.rust if not file.text.startswith(GENERATED))
    return {text for file in written if not file.is_test for text in file.literals}


def _produced(files: Iterable[PythonFile], folders: tuple[str, ...]) -> set[str]:
    """String literals that may become values, in files below these folders."""
    return {
        text
        for file in files
        if str(file.path).startswith(folders) and not str(file.path).startswith(_CATALOGUE)
        for text in _literals(file.tree)
    }


def _literals(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value
        elif not is_docstring and not isinstance(child, ast.Compare):
            yield from _literals(child)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
