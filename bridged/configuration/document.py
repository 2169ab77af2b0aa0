"""Parses YAML text into a tree that knows the line of every key and value.

Scalars follow the YAML 1.2 core schema: only `true` and `false` are booleans; `on`, `off`, `no` and
MAC addresses such as 52:54:00:12:34:56 stay text. Tags, and with them Python objects, are refused. Anchors,
aliases and `<<` work, but nesting and the expanded size are bounded against "billion laughs" files.

Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from bridged.errors import ConfigurationError

TEXT_CHARACTERS_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 16
NODES_MAX: Final = 20_000
DIGITS_MAX: Final = 30

Plain = str | int | float | bool | None
KeyPath = tuple[str | int, ...]

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?[0-9]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(slots=True)
class Node:
    """One value; `line` counts from 1.

    `size` counts its values with aliases expanded, `depth` its levels of nesting.
    """

    line: int
    size: int = 1
    depth: int = 0


@dataclass(slots=True)
class ScalarNode(Node):
    value: Plain = None


@dataclass(slots=True)
class SequenceNode(Node):
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class MappingNode(Node):
    """`entries`: key -> (line of the key, value)."""

    entries: dict[str, tuple[int, Node]] = field(default_factory=dict)


@dataclass(slots=True)
class _Open:
    """A mapping or sequence that has not ended yet; `merged` holds what `<<` named."""

    node: MappingNode | SequenceNode
    anchor: str | None
    key: str | None = None
    key_line: int = 0
    merged: list[Node] = field(default_factory=list)


def parse_document(text: str, lines_before: int = 0) -> Node:
    """Read exactly one YAML document. `lines_before` is added to every line of the tree.

    Raises:
        ConfigurationError: not YAML, more than one document, a tag, a duplicate key, or beyond a limit of
            this module; with `line` in this text, without `file`.
    """
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ConfigurationError(
            f"the file is longer than {TEXT_CHARACTERS_MAX // 1024} KiB; a configuration is smaller"
        )
    builder = _Builder(lines_before)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except ConfigurationError as error:
        line = None if error.line is None else error.line - lines_before
        raise ConfigurationError(error.reason, line=line, key=error.key) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        if "\\t" in (error.problem or ""):
            reason = "indent the line with spaces, not with a tab"
        raise ConfigurationError(f"not YAML: {reason}", line=line) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"not YAML: {str(error).splitlines()[0]}") from None
    except (ValueError, OverflowError):  # a number escape beyond Unicode reaches chr() inside the scanner
        raise ConfigurationError("not YAML: an escape is not a character") from None
    if builder.root is None:
        raise ConfigurationError("the file is empty")
    return builder.root


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars, bounded by NODES_MAX and DEPTH_MAX."""
    if isinstance(node, MappingNode):
        return {key: plain(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return node.value if isinstance(node, ScalarNode) else None


def descend(root: Node, path: KeyPath) -> Iterator[tuple[str | int, int, Node]]:
    """Walk `path` as far as it exists; yield (path element, its line, its value) for each step."""
    node = root
    for element in path:
        if isinstance(node, MappingNode) and isinstance(element, str) and element in node.entries:
            line, node = node.entries[element]
        elif isinstance(node, SequenceNode) and isinstance(element, int) and 0 <= element < len(node.items):
            node = node.items[element]
            line = node.line
        else:
            return
        yield element, line, node


class _Builder:
    """Builds the tree from parser events without recursion: nesting cannot exhaust the stack."""

    def __init__(self, lines_before: int) -> None:
        self.root: Node | None = None
        self._lines_before = lines_before
        self._documents = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}

    def take(self, event: yaml.Event) -> None:
        assert event.start_mark is not None
        line = event.start_mark.line + 1 + self._lines_before
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise ConfigurationError("a second YAML document (`---`) in the file", line=line)
        elif isinstance(event, yaml.ScalarEvent):
            self._refuse_tag(event.tag, line)
            self._take_scalar(event, line)
        elif isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(event.anchor or "")
            if node is None:
                raise ConfigurationError(f"*{event.anchor} has no anchor above it", line=line)
            self._add(node, line)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._refuse_tag(event.tag, line)
            if len(self._open) >= DEPTH_MAX:
                raise ConfigurationError(f"nested more than {DEPTH_MAX} deep", line=line)
            node = MappingNode(line) if isinstance(event, yaml.MappingStartEvent) else SequenceNode(line)
            self._open.append(_Open(node, event.anchor))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            done = self._open.pop()
            self._merge(done)
            self._finish(done.node, done.anchor, done.node.line)

    def _take_scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            raise ConfigurationError("not YAML: an escape is not a character", line=line)
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.node, MappingNode) and parent.key is None:
            self._take_key(parent, event.value, line)
            if event.anchor:
                self._anchors[event.anchor] = ScalarNode(line, value=event.value)
            return
        is_plain = event.style is None and event.implicit[0]
        value = _resolve(event.value, line) if is_plain else event.value
        self._finish(ScalarNode(line, value=value), event.anchor, line)

    def _take_key(self, parent: _Open, key: str, line: int) -> None:
        assert isinstance(parent.node, MappingNode)
        if key in parent.node.entries:
            first = parent.node.entries[key][0] - self._lines_before
            raise ConfigurationError(f"the key appears twice (first in line {first})", line=line, key=key)
        parent.key, parent.key_line = key, line

    @staticmethod
    def _refuse_tag(tag: str | None, line: int) -> None:
        if tag is not None and tag != "!":
            raise ConfigurationError(f"tags such as {tag[:60]} are not allowed", line=line)

    def _finish(self, node: Node, anchor: str | None, line: int) -> None:
        if anchor:
            self._anchors[anchor] = node
        self._add(node, line)

    def _add(self, node: Node, line: int) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.node.size += node.size
        if parent.node.size > NODES_MAX:
            raise ConfigurationError(f"more than {NODES_MAX} values (aliases count in full)", line=line)
        parent.node.depth = max(parent.node.depth, node.depth + 1)
        if len(self._open) + node.depth > DEPTH_MAX:
            raise ConfigurationError(f"nested more than {DEPTH_MAX} deep", line=line)
        if isinstance(parent.node, SequenceNode):
            parent.node.items.append(node)
        elif parent.key is None:
            self._take_key(parent, _key_text(node, line), line)
        else:
            if parent.key == "<<":
                parent.merged.append(node)
            else:
                parent.node.entries[parent.key] = (parent.key_line, node)
            parent.key = None

    @staticmethod
    def _merge(done: _Open) -> None:
        """Apply `<<: *name` and `<<: [*one, *two]`: own keys win, then earlier sources."""
        for source in done.merged:
            sources = source.items if isinstance(source, SequenceNode) else [source]
            for item in sources:
                if not isinstance(item, MappingNode) or not isinstance(done.node, MappingNode):
                    raise ConfigurationError("`<<` needs a mapping", line=source.line, key="<<")
                for key, entry in item.entries.items():
                    done.node.entries.setdefault(key, entry)


def _key_text(node: Node, line: int) -> str:
    if isinstance(node, ScalarNode) and isinstance(node.value, str):
        return node.value
    raise ConfigurationError("a key must be plain text", line=line)


def _resolve(text: str, line: int) -> Plain:
    """The value of an unquoted scalar by the YAML 1.2 core schema."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        if len(text) > DIGITS_MAX:
            raise ConfigurationError(f"a number of more than {DIGITS_MAX} digits", line=line)
        return int(text, 16) if text.startswith("0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
