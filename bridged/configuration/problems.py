"""From what pydantic refuses to errors with file, line, dotted key, reason and a suggestion.

Pure: no I/O. Values are repeated in a message only where they are short and no secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bridged.configuration.document import KeyPath, MappingNode, Node, descend
from bridged.configuration.keys import all_keys, section_at
from bridged.errors import ConfigurationError, ConfigurationErrors

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ERRORS_MAX: Final = 50
_SHOWN_CHARACTERS: Final = 40
_SECRET_KEYS: Final = frozenset(("key", "ca", "certificate", "crl"))
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
    """An error about `path`, with the line of the deepest part of it that stands in the file."""
    line = root.line
    for _, step_line, _ in descend(root, path):
        line = step_line
    return ConfigurationError(reason, file=file, line=line, key=dotted(path))


def from_validation(root: Node, details: Sequence[ErrorDetails], file: Path) -> ConfigurationErrors:
    """All errors of one validation, one for each key, in file order; at most ERRORS_MAX."""
    reasons: dict[KeyPath, list[str]] = {}
    for detail in details:
        path = _path_of(root, detail)
        reason = _reason(detail, path)
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
    """The part of pydantic's location that names keys: union branches and `[key]` are left out."""
    location = tuple(detail.get("ctx", {}).get("path", detail["loc"]))
    steps = tuple(element for element, _, _ in descend(root, location))
    if detail["type"] == "missing":
        return (*steps, location[-1])
    return steps


def _reason(detail: ErrorDetails, path: KeyPath) -> str:
    kind = detail["type"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"unknown key{_suggestion(path)}"
    if kind == "no_bridge":
        return detail["msg"]
    if kind == "value_error":
        return str(detail.get("ctx", {}).get("error", detail["msg"]))
    if kind == "string_pattern_mismatch":
        return _name_rule(path)
    if kind in ("tuple_type", "model_type", "dict_type", "model_attributes_type"):
        return "must be a list" if kind == "tuple_type" else "must be a mapping (`key: value` lines)"
    text = detail["msg"].replace("Input should be", "must be").replace(", unable to parse", "")
    text = re.sub(r"^must be a valid (\w+).*", r"must be a \1", text)
    text = text.replace("must be a integer", "must be a whole number").replace("a boolean", "true or false")
    text = text.replace("must be a string", "must be text (put it in quotes)")
    return text + _shown(detail["input"], path) + _word_suggestion(detail)


def _name_rule(path: KeyPath) -> str:
    if len(path) == 2 and path[0] == "tunnels":
        return "a tunnel's name has letters, digits, `-`, `_` and `.`, and begins with a letter or digit"
    return "an interface name is 1 to 15 ASCII characters without space, `/` and `:`"


def _shown(value: Any, path: KeyPath) -> str:
    names = [element for element in path if isinstance(element, str)]
    if not names or names[-1] in _SECRET_KEYS or not isinstance(value, (str, int, float, bool)):
        return ""
    text = repr(value) if isinstance(value, str) else str(value)
    return f", not {text}" if len(text) <= _SHOWN_CHARACTERS else ""


def _word_suggestion(detail: ErrorDetails) -> str:
    if detail["type"] != "literal_error" or not isinstance(detail["input"], str):
        return ""
    words = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    close = difflib.get_close_matches(detail["input"][:_SHOWN_CHARACTERS], words, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _suggestion(path: KeyPath) -> str:
    """A hint for an unknown key: a key of the same section spelt alike, else where it belongs."""
    wrong = str(path[-1])[:60] if path else ""
    section = section_at(path[:-1])
    siblings = list(section.model_fields) if section else []
    close = difflib.get_close_matches(wrong.replace("-", "_"), siblings, n=1, cutoff=0.6)
    if close:
        return f"; did you mean `{close[0]}`?"
    elsewhere = [key.path for key in all_keys() if key.path.rpartition(".")[2] == wrong]
    if elsewhere:
        return f"; it belongs at {' or '.join(f'`{key}`' for key in elsewhere[:3])}"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def _narrowed(root: Node, path: KeyPath, reason: str) -> KeyPath:
    """A rule over several keys names one in `backticks`: point at the first that stands in the file."""
    node = root
    for _, _, value in descend(root, path):
        node = value
    if isinstance(node, MappingNode):
        for name in _QUOTED_KEY.findall(reason):
            if name in node.entries:
                return (*path, name)
    return path


def _joined(texts: list[str]) -> str:
    """Several branches of a union refuse one value: say each alternative, the value only once."""
    alternatives = [text.partition(", not ")[0] for text in texts]
    if len(texts) > 1 and all(text.startswith("must be ") for text in alternatives):
        tail = texts[0].partition(", not ")
        words = " or ".join(text.removeprefix("must be ") for text in alternatives)
        return f"must be {words}{''.join(tail[1:])}"
    return "; ".join(texts)
