"""The only way from a command to the terminal: what stands in the text cannot steer it.

Names, notices and errors quote profiles, certificates and peers. Every character that is not printable is
written as an escape, `\\x1b` for example. No other module of the CLI prints (a unit test holds them to it).
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

import typer

from bridged.errors import naming
from bridged.protocol.text import visible


def show(text: str = "", *, bold: bool = False, fg: str | None = None) -> None:
    """One line on stdout: a result. Bold and colour go to a terminal only."""
    with naming("standard output"):
        typer.secho(visible(text), bold=bold or None, fg=fg)


def say(text: str) -> None:
    """One line on stderr: a message."""
    typer.echo(visible(text), err=True)


def show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback on stderr (see `sys.excepthook`): its last line may quote anything."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(visible(text, lines=True))


def hand_over(document: str) -> None:
    """A file's text on stdout: unchanged into a file or pipe, made visible line by line on a terminal."""
    is_terminal = getattr(sys.stdout, "isatty", lambda: False)()
    with naming("standard output"):
        sys.stdout.write(visible(document, lines=True) if is_terminal else document)
        sys.stdout.flush()


def visible_tree(value: Any) -> Any:
    """Plain values (as JSON has them) with all texts made visible, keys too."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible_tree(key): visible_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [visible_tree(item) for item in value]
    return value
