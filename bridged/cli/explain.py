"""`bridged explain`: what a code of a log line, a metric or the API means."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated

import typer

from bridged.catalogue import counters
from bridged.catalogue.error_codes import ERROR_CODES
from bridged.cli.output import show


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="As a log line, a metric or the API shows it.")],
) -> None:
    """Print what a code of an error, drop, handshake, disconnect, host hazard or counter means."""
    meanings = [(kind, text) for name, kind, text in _all() if name == code]
    if not meanings:
        close = get_close_matches(code, all_codes(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "docs/reference/errors.md lists all codes"
        raise typer.BadParameter(f"no code {code!r}; {hint}")
    for kind, text in meanings:
        show(f"{code} ({kind}): {text}")


def all_codes() -> set[str]:
    """Every code that `bridged explain` knows."""
    return {name for name, _, _ in _all()}


def _all() -> Iterator[tuple[str, str, str]]:
    """Name, kind and meaning of every code; a name can have several kinds."""
    for error in ERROR_CODES:
        yield error.name, f"error, {error.group}", error.meaning
    for reason in counters.DROP_REASONS:
        yield reason.name, f"drop reason, {reason.group}", reason.meaning
    for count in counters.COUNTS:
        yield count.name, f"counter of {count.family}", count.meaning
    for name, meaning in counters.HANDSHAKE_OUTCOMES.items():
        yield name, "handshake outcome", meaning
    for name, meaning in counters.DISCONNECT_REASONS.items():
        yield name, "disconnect reason", meaning
    for name, meaning in counters.HOST_WARNINGS.items():
        yield name, "hazard of the host", meaning
