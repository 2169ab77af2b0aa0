"""The keys of the schema as a flat table, the source of suggestions, the reference and `diff`.

NAME stands for a name that the operator chooses: `tunnels.NAME.tap.mac`. Pure: no I/O.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from bridged.configuration.schema import Configuration
from bridged.configuration.section import Section

PLACEHOLDER: Final = "NAME"


@dataclass(frozen=True, slots=True)
class SchemaKey:
    """One key: dotted `path`, its section, its type in words, default and description."""

    path: str
    section: type[Section]
    kind: str
    required: bool
    default: Any
    description: str


@cache
def all_keys() -> tuple[SchemaKey, ...]:
    """Every key that has a value (no sections), in schema order."""
    return tuple(_keys_of(Configuration, ""))


def section_at(path: tuple[str | int, ...]) -> type[Section] | None:
    """The section at `path`; None if there is none."""
    section: type[Section] = Configuration
    rest = list(path)
    while rest:
        info = section.model_fields.get(str(rest.pop(0)))
        if info is None:
            return None
        inner, is_named = _inner_section(info)
        if inner is None or (is_named and not rest):
            return None
        if is_named:
            rest.pop(0)
        section = inner
    return section


def _keys_of(section: type[Section], prefix: str) -> Iterator[SchemaKey]:
    for name, info in section.model_fields.items():
        inner, is_named = _inner_section(info)
        path = f"{prefix}{name}"
        if inner is not None:
            yield from _keys_of(inner, f"{path}.{PLACEHOLDER}." if is_named else f"{path}.")
            continue
        yield SchemaKey(
            path=path,
            section=section,
            kind=kind_in_words(info.annotation),
            required=info.is_required(),
            default=None if info.is_required() else info.default,
            description=info.description or "",
        )


def _inner_section(info: FieldInfo) -> tuple[type[Section] | None, bool]:
    """(section, reached through a chosen name) of a field that holds a section or a dict of sections."""
    annotation = info.annotation
    is_named = get_origin(annotation) is dict
    if is_named:
        annotation = get_args(annotation)[1]
    elif get_origin(annotation) in (Union, types.UnionType):
        sections = [one for one in get_args(annotation) if one is not type(None)]
        annotation = sections[0] if len(sections) == 1 else annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, is_named
    return None, False


def kind_in_words(annotation: Any) -> str:
    """A type for people: `text`, `whole number`, `list of text`, or the allowed words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_in_words(arguments[0])
    if origin is Literal:
        return " | ".join(f"`{argument}`" for argument in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(
            "`null`" if argument is type(None) else kind_in_words(argument) for argument in arguments
        )
    if origin is tuple:
        return f"list of {kind_in_words(arguments[0])}"
    names = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "`true` | `false`",
        "Path": "path",
    }
    return names.get(getattr(annotation, "__name__", ""), str(annotation))
