"""A profile while its statements are read, and how a statement's words are taken.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from bridged.profiles.profile import Material, Notice, Profile
from bridged.profiles.statements import Statement

DEFAULT_PORT: Final = 1194


class Refusal(Exception):
    """The directive cannot be taken; the text says why and what to do."""


@dataclass(slots=True)
class RemoteLine:
    """One `remote` before the file's defaults for port and protocol are known."""

    line: int
    host: str
    port: int | None
    protocol: str | None


@dataclass(slots=True)
class Draft:
    """A profile while its statements are read."""

    profile: Profile = field(default_factory=Profile)
    remotes: list[RemoteLine] = field(default_factory=list)
    protocol: str = "udp"
    remote_port: int = DEFAULT_PORT
    local_host: str | None = None
    local_port: int | None = None
    is_client: bool = False
    pulls: bool = False
    binds: bool = True
    device_line: int | None = None
    device_type: str | None = None
    device_name: str | None = None
    digest: tuple[int, str] | None = None
    legacy_cipher: str | None = None

    def note(self, statement: Statement, text: str) -> None:
        self.profile.notices.append(Notice(statement.line, f"`{statement.name}`: {text}"))


Mapper = Callable[[Draft, Statement], None]


def refuse(reason: str) -> NoReturn:
    raise Refusal(reason)


def argument(statement: Statement, what: str) -> str:
    if not statement.arguments or not statement.arguments[0]:
        refuse(f"needs {what}")
    return statement.arguments[0]


def number(text: str, low: int, high: int) -> int:
    """A decimal number within limits; raises Refusal."""
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not low <= int(text) <= high:
        refuse(f"{text!r} is not a number from {low} to {high}")
    return int(text)


def number_argument(statement: Statement, low: int, high: int, index: int = 0) -> int:
    if len(statement.arguments) <= index:
        refuse(f"needs a number from {low} to {high}")
    return number(statement.arguments[index], low, high)


def material(statement: Statement) -> Material:
    if statement.inline is not None:
        return Material(statement.line, text=statement.inline)
    path = argument(statement, "a file, or an inline block")
    if path == "[inline]":
        refuse(f"`[inline]` needs a block `<{statement.name}>`; the file has none")
    return Material(statement.line, path=path)
