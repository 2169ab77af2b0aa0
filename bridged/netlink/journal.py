"""What is ours on the host, kept in a file, so that a daemon that was killed can still give it back.

Source: rename(2) for the atomic replacement.
Blocking, one small file per bridge. What another boot or another network namespace wrote is worth nothing:
interface indices and deadlines are of this boot and this namespace.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from pathlib import Path
from typing import Any

from bridged.addresses import MacAddress
from bridged.switching.links import Ownership

VERSION = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/thread-self/ns/net")


class Journal:
    """The record of one bridge at `path`, mode 0600; its folder is made where it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Ownership | None:
        """What was written in this boot and namespace; None: nothing, or nothing that can be read."""
        try:
            record = json.loads(self.path.read_bytes())
            if (record["version"], record["where"]) != (VERSION, _where()):
                return None
            found = _value(Ownership, record["ownership"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        assert isinstance(found, Ownership)
        return found

    def store(self, ownership: Ownership) -> None:
        """Replace the record, or remove it where nothing is ours.

        Raises:
            OSError: the file cannot be written.
        """
        if ownership.is_empty:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = {"version": VERSION, "where": _where(), "ownership": _plain(ownership)}
        new = self.path.with_name(f".{self.path.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file)
        new.replace(self.path)


def _where() -> list[str | int]:
    return [_BOOT_ID.read_text().strip(), _NAMESPACE.stat().st_ino]


def _plain(value: Any) -> Any:
    if isinstance(value, MacAddress):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _value(kind: Any, plain: Any) -> Any:
    """Of the declared type `kind`; TypeError or ValueError where `plain` does not fit."""
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if plain is None:
            return None
        return _value(next(argument for argument in arguments if argument is not type(None)), plain)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(_value(arguments[0], item) for item in plain)
        return tuple(_value(argument, item) for argument, item in zip(arguments, plain, strict=True))
    if kind is MacAddress:
        return MacAddress.parse(plain)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _value(hints[name], item) for name, item in plain.items()})  # type: ignore[operator]
    if kind is float and isinstance(plain, int):
        return float(plain)
    if not isinstance(plain, kind):
        raise TypeError(f"{plain!r} is no {kind}")
    return plain
