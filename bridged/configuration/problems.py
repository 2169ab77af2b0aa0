"""Turns pydantic's refusals into errors with file, line, dotted key, reason and a suggestion.

Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridged.configuration.document import KeyPath, MappingNode, Node, descend
from bridged.configuration.reasons import reason_of
from bridged.errors import ConfigurationError, ConfigurationErrors

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ERRORS_MAX: Final = 50
_ALTERNATIVE = re.compile(r"must be (?P<what>.*?)(?P<value>, not .*?)?(?P<tail>; .*)?")
_QUOTED_KEY = re.compile(r"`(\w+)`")


def dotted(path: Iterable[str | int]) -> str:
    """`("tunnels", "a", "remotes", 0)` as `tunnels.a.remotes[0]`."""
    text = ""
    for element in path:
        if isinstance(element, int):
            text += f"[{element}]"
        else:
            text += f".{element}" if text else element
    return text


def error_at(root: Node, path: KeyPath, reason: str, file: Path) -> ConfigurationError:
    """An error about `path`, with the line of its deepest part that the file contains."""
    line = root.line
    for _, step_line, _ in descend(root, path):
        line = step_line
    return ConfigurationError(reason, file=file, line=line, key=dotted(path))


def from_validation(root: Node, details: Sequence[ErrorDetails], file: Path) -> ConfigurationErrors:
    """All errors of one validation, one for each key, in file order; at most ERRORS_MAX."""
    reasons: dict[KeyPath, list[str]] = {}
    for detail in details:
        if detail["type"] == "too_short" and detail["input"]:
            continue  # its items were refused, which is reported already
        path = _path_of(root, detail)
        reason = reason_of(detail, path)
        if detail["type"] == "value_error":
            path = _narrowed(root, path, reason)
        known = reasons.setdefault(path, [])
        if reason not in known:
            known.append(reason)
    errors = [error_at(root, path, _joined(texts), file) for path, texts in reasons.items()]
    return sorted_errors(errors)


def sorted_errors(errors: list[ConfigurationError]) -> ConfigurationErrors:
    errors.sort(key=lambda error: error.line or 0)
    return ConfigurationErrors(errors[:ERRORS_MAX])


def _path_of(root: Node, detail: ErrorDetails) -> KeyPath:
    """Pydantic's location without union branches and `[key]`: only keys remain."""
    location = tuple(detail.get("ctx", {}).get("path", detail["loc"]))
    steps = tuple(element for element, _, _ in descend(root, location))
    if detail["type"] == "missing":
        return (*steps, location[-1])
    return steps


def _narrowed(root: Node, path: KeyPath, reason: str) -> KeyPath:
    """Point at the first key that a rule names in `backticks` and the file contains."""
    node = root
    for _, _, value in descend(root, path):
        node = value
    if isinstance(node, MappingNode):
        for name in _QUOTED_KEY.findall(reason):
            if name in node.entries:
                return (*path, name)
    return path


def _joined(texts: list[str]) -> str:
    """Join the refusals of several union branches: each alternative, then value and cure once."""
    parts = [_ALTERNATIVE.fullmatch(text) for text in texts]
    if len(texts) > 1 and all(parts):
        found = [part.groupdict() for part in parts if part]
        tail = next((part["tail"] for part in found if part["tail"]), "")
        return f"must be {' or '.join(part['what'] for part in found)}{found[0]['value'] or ''}{tail}"
    return "; ".join(texts)
