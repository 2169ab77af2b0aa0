"""The API's answers as JSON values. Pure: no I/O.

The daemon makes only these: the classes in `models`, with which clients read them, would cost it memory. A
test compares each document with its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from bridged.dataplane.contract import DataplaneSnapshot
from bridged.runtime.snapshot import DaemonSnapshot

_LEFT_OUT: Final[Mapping[type, frozenset[str]]] = {DataplaneSnapshot: frozenset(("peers", "counts"))}
"""By class: fields that the answer has elsewhere."""


def status_document(snapshot: DaemonSnapshot) -> dict[str, Any]:
    """The snapshot. Keys of several parts become nested objects."""
    document: dict[str, Any] = _nested(snapshot)
    return document


def health_document(snapshot: DaemonSnapshot) -> dict[str, Any]:
    """Whether everything works, and what does not."""
    bridges = {bridge.name: bridge.problem for bridge in snapshot.bridges if bridge.problem is not None}
    undone = {f"{item.duty} {item.subject}".strip(): item.reason for item in snapshot.duties.undone}
    up = all(tunnel.up for tunnel in snapshot.tunnels)
    return {
        "ok": up and not bridges and not undone,
        "tunnels": {tunnel.name: tunnel.state for tunnel in snapshot.tunnels},
        "bridges": bridges,
        "undone": undone,
    }


def _nested(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        left_out = _LEFT_OUT.get(type(value), frozenset())
        document = {
            item.name: _nested(getattr(value, item.name))
            for item in fields(value)
            if item.name not in left_out
        }
        # Each family of counters is a field of its own, whatever families there are.
        return document | (_nested(value.counts) if isinstance(value, DataplaneSnapshot) else {})
    if isinstance(value, Mapping):
        return _nested_mapping(value)
    if isinstance(value, tuple):
        return [_nested(item) for item in value]
    return value


def _nested_mapping(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in mapping.items():
        parts = key if isinstance(key, tuple) else (key,)
        inner = nested
        for part in parts[:-1]:
            inner = inner.setdefault(part, {})
        inner[parts[-1]] = _nested(value)
    return nested
