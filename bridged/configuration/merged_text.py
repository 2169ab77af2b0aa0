"""The merged configuration as YAML text: each value with its file and line, secrets hidden. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import yaml

from bridged.configuration.document import MappingNode, Node, ScalarNode, plain
from bridged.configuration.load import Merged

_SECRET_KEYS: Final = frozenset(("password", "totp_secret"))
_SECRET_MARKS: Final = ("PRIVATE KEY-----", "OpenVPN Static key", "OpenVPN tls-crypt-v2")


def merged_text(merged: Merged) -> str:
    """YAML that means the same as all files together, but for hidden private and static keys."""
    return "".join(f"{line}\n" for line in _mapping(merged, merged.root, ""))


def _mapping(merged: Merged, node: MappingNode, indent: str) -> Iterator[str]:
    for key, (line, value) in node.entries.items():
        file, number = merged.lines.place(line)
        name = f"{indent}{_flow(key)}:"
        if isinstance(value, MappingNode) and value.entries:
            yield name
            yield from _mapping(merged, value, f"{indent}  ")
        elif isinstance(value, ScalarNode) and isinstance(value.value, str) and "\n" in value.value:
            if key in _SECRET_KEYS:
                yield f"{name} {_flow('(a secret, not shown)')}  # {file}:{number}"
                continue
            yield from _block(name, value.value, indent, f"# {file}:{number}")
        else:
            yield f"{name} {_flow(_hidden(_value(value)))}  # {file}:{number}"


def _block(name: str, text: str, indent: str, place: str) -> Iterator[str]:
    """A text of several lines: a certificate, or a secret of which only the size is shown."""
    if (shown := _hidden(text)) != text:
        yield f"{name} {_flow(shown)}  {place}"
        return
    yield f"{name} |  {place}"
    yield from (f"{indent}  {line}" for line in text.splitlines())


def _hidden(value: object) -> object:
    """The value without keys, wherever somebody has pasted one."""
    if isinstance(value, list):
        return [_hidden(one) for one in value]
    if isinstance(value, dict):
        return {key: _hidden(one) for key, one in value.items()}
    if isinstance(value, str) and any(mark in value for mark in _SECRET_MARKS):
        return f"(a key of {len(value)} characters, not shown)"
    return value


def _value(node: Node) -> object:
    return {} if isinstance(node, MappingNode) else plain(node)


def _flow(value: object) -> str:
    """The value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=False, width=1_000_000)
    return text.removesuffix("...\n").strip()
