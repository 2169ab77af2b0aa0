"""A file that records what is ours on the host, so that a killed daemon's changes can still be undone.

Source: rename(2) for the atomic replacement.
Blocking, one small file per bridge. A record of another boot or network namespace is useless: interface
indices and deadlines hold only for one boot and one namespace.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import stat
import types
import typing
from pathlib import Path
from socket import AF_INET6
from typing import Any

from bridged.addresses import MacAddress
from bridged.files import make_private_directory, write_atomic
from bridged.link_planning.wishes import BridgeWish, Ownership

VERSION = 2
OLDER_VERSIONS = (1,)
DAMAGED_SUFFIX = ".damaged"
OCTETS_MAX = 16 << 20
FILE_NAMES = {"mac_fixed": "mac_pinned"}
"""Fields whose name in the file is another one, so that older versions can read it."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/thread-self/ns/net")


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What is ours for one bridge, and the wish at that time (None: written by version 1)."""

    ownership: Ownership
    wish: BridgeWish | None


class Journal:
    """The record of one bridge at `path`, mode 0600; the folder is created if needed.

    `damage`, after `load`: what was wrong with the file (None: nothing). A damaged file is renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None

    def load(self) -> Record | None:
        """The record written in this boot and namespace; None: nothing usable. Never raises."""
        self.damage = None
        try:
            text = _read(self.path)
            if text is None:
                return None
            record = json.loads(text)
            boot, namespace = record["where"]
            here = _where()
            if boot != here[0]:
                # Written before the machine restarted: none of it is left on the host.
                return None
            if namespace != here[1]:
                self._put_aside("it belongs to another network namespace")
                return None
            if record["version"] not in (VERSION, *OLDER_VERSIONS):
                raise ValueError(f"version {record['version']!r}")
            found, wish = _value(Ownership, record["ownership"]), record.get("wish")
            result = Record(found, None if wish is None else _value(BridgeWish, wish))
            _check(result)
        except Exception as error:
            # Whatever the file contains, it must not prevent the start.
            self._put_aside(f"it cannot be used ({type(error).__name__}: {str(error)[:120]})")
            return None
        return result

    def _put_aside(self, damage: str) -> None:
        aside = self.path.with_name(f"{self.path.name}{DAMAGED_SUFFIX}")
        try:
            if aside.is_dir() and not aside.is_symlink():
                aside = aside.with_name(f"{aside.name}.{os.getpid()}")
            self.path.rename(aside)
            self.damage = f"{self.path}: {damage}; it is kept as {aside.name}"
        except OSError as error:
            self.damage = f"{self.path}: {damage}, and cannot be put aside: {error.strerror or error}"

    def store(self, ownership: Ownership, wish: BridgeWish) -> None:
        """Replace the record, or remove the file where nothing is ours.

        Raises:
            OSError: the file cannot be written.
        """
        if ownership.is_empty:
            self.path.unlink(missing_ok=True)
            return
        make_private_directory(self.path.parent)
        record = {
            "version": VERSION,
            "where": _where(),
            "ownership": _plain(ownership),
            "wish": _plain(wish),
        }
        # No need to wait for the disk: a record of another boot is useless.
        write_atomic(self.path, json.dumps(record).encode(), durable=False)


def _read(path: Path) -> bytes | None:
    """The file's content; None without a file.

    Raises:
        OSError, ValueError: it is not a regular file, or too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a file")
        text = file.read(OCTETS_MAX + 1)
    if len(text) > OCTETS_MAX:
        raise ValueError("too large")
    return text


def _check(record: Record) -> None:
    """Values of the right type may still be nonsense that would break the plan.

    Raises:
        ValueError: they are nonsense.
    """
    ours = record.ownership
    for address in (*ours.handed_over, *ours.added):
        ipaddress.ip_interface(address.address)
    for route in (*ours.routes, *ours.added_routes):
        if (ipaddress.ip_network(route.destination).version == 6) != (route.family == AF_INET6):
            raise ValueError(f"route {route.destination} of family {route.family}")
    for text in record.wish.addresses if record.wish is not None else ():
        ipaddress.ip_interface(text)


def _where() -> list[str | int]:
    return [_BOOT_ID.read_text().strip(), _NAMESPACE.stat().st_ino]


def _plain(value: Any) -> Any:
    if isinstance(value, MacAddress):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            FILE_NAMES.get(field.name, field.name): _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _value(kind: Any, plain: Any) -> Any:
    """`plain` as the declared type `kind`; TypeError or ValueError where it does not fit."""
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
        field_names = {FILE_NAMES.get(name, name): name for name in hints}
        named = {field_names[name]: item for name, item in plain.items()}
        return kind(**{name: _value(hints[name], item) for name, item in named.items()})  # type: ignore[operator]
    if kind is float and isinstance(plain, int):
        return float(plain)
    if not isinstance(plain, kind):
        raise TypeError(f"{plain!r} is no {kind}")
    return plain
