"""The only module of the CLI that prints. Text cannot steer the terminal.

Names, notices and errors quote profiles, certificates and peers. Every unprintable character is written as
an escape, for example `\\x1b`. A unit test finds other modules that print. Loads typer when it needs it.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

from bridged.errors import naming
from bridged.protocol.text import visible


def show(text: str = "", *, bold: bool = False, fg: str | None = None) -> None:
    """Print a result: one line on stdout. Bold and colour appear on a terminal only."""
    import typer

    with naming("standard output"):
        typer.secho(visible(text), bold=bold or None, fg=fg)


def say(text: str) -> None:
    """Print a message: one line on stderr."""
    import typer

    typer.echo(visible(text), err=True)


def show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback on stderr, made safe: its last line may quote anything. For `sys.excepthook`."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(visible(text, lines=True))


def hand_over(document: str) -> None:
    """Write a file's text to stdout: unchanged into a file or pipe, with escapes on a terminal."""
    is_terminal = getattr(sys.stdout, "isatty", lambda: False)()
    with naming("standard output"):
        sys.stdout.write(visible(document, lines=True) if is_terminal else document)
        sys.stdout.flush()


def visible_tree(value: Any) -> Any:
    """JSON values with escapes in all texts, keys included."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible_tree(key): visible_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [visible_tree(item) for item in value]
    return value
