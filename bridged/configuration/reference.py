"""The page docs/reference/configuration.md, from the schema. Pure: no I/O."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Final

from bridged.configuration.keys import SchemaKey, all_keys

_INTRODUCTION: Final = """\
# Configuration

Generated from the schema in `bridged/configuration` by `python -m bridged.telemetry.reference`; edit that.

One YAML file of at most 256 KiB. `bridged check FILE` shows all errors in it as `file:line: key: reason`.
`bridged check --schema` prints the JSON schema for editors (`config/bridged.schema.json`). Unknown keys are
refused. YAML 1.2 applies: MAC addresses and words such as `on` need no quotes. Booleans are `true` and
`false`; `yes`, `no`, `on` and `off` mean the same. Anchors, aliases and `<<` work. Relative paths start from
the file's folder. `NAME` is a name of your choice. Under `tls` and `wrap`, you can write the text of a
certificate or key in place of its file.

Drop-ins are merged over the file in the order of their names: `conf.d/*.yaml` beside a file named
`bridged.yaml`, `NAME.d/*.yaml` beside any other `NAME.yaml`. Mappings are merged key by key; a list or any
other value replaces the earlier one. `bridged show-config FILE` prints the result, with the origin of each
value. [Examples](../../config/examples/) · [Glossary](../glossary.md)
"""


def configuration_page() -> str:
    """The whole page."""
    lines = [_INTRODUCTION]
    sections: dict[str, list[SchemaKey]] = {}
    for key in all_keys():
        sections.setdefault(key.path.rpartition(".")[0], []).append(key)
    for prefix, keys in sections.items():
        lines += _section(prefix, keys)
    return "\n".join(lines) + "\n"


def _section(prefix: str, keys: list[SchemaKey]) -> list[str]:
    section = keys[0].section
    title = f"`{prefix}`" if prefix else "The top"
    lines = [f"## {title}", "", inspect.cleandoc(section.__doc__ or ""), ""]
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key in keys:
        name = key.path.rpartition(".")[2]
        default = "required" if key.required else _default_text(key.default)
        kind = key.kind.replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {default} | {key.description} |")
    return [*lines, ""]


def _default_text(value: Any) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, Path):
        return f"`{value}`"
    return f"`{value}`"
