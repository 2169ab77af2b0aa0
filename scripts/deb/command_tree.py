"""The commands of `bridged` with their options, as manual pages and completions need them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import typer

from bridged.cli.main import app

_OF_TYPER: Final = ("--install-completion", "--show-completion")


@dataclass(frozen=True, slots=True)
class Option:
    """`value` is empty for a flag."""

    names: tuple[str, ...]
    value: str
    help: str
    required: bool
    repeats: bool


@dataclass(frozen=True, slots=True)
class Argument:
    value: str
    help: str
    required: bool


@dataclass(frozen=True, slots=True)
class Command:
    """`words` after `bridged`: () for the program itself, ("tap", "list") for a command of a group."""

    words: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    children: tuple[Command, ...]

    def walk(self) -> Iterator[Command]:
        """This command and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def command_tree() -> Command:
    return _command(typer.main.get_command(app), ())


def _command(command: Any, words: tuple[str, ...]) -> Command:
    options, arguments = [], []
    for parameter in command.params:
        value = parameter.metavar or ("" if getattr(parameter, "is_flag", False) else parameter.name.upper())
        help_text = (parameter.help or "").strip()
        if parameter.param_type_name == "argument":
            arguments.append(Argument(value.strip("[]"), help_text, parameter.required))
        elif not set(parameter.opts) & set(_OF_TYPER):
            names = tuple(sorted(parameter.opts, key=len))
            repeats = bool(getattr(parameter, "multiple", False))
            options.append(Option(names, value, help_text, parameter.required, repeats))
    options.append(Option(("-h", "--help"), "", "Show the help and exit.", False, False))
    children = [
        _command(child, (*words, name))
        for name, child in getattr(command, "commands", {}).items()
        if not child.hidden
    ]
    text = inspect.cleandoc(command.help or "")
    return Command(words, text, tuple(options), tuple(arguments), tuple(children))
