"""`bridged run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from bridged.cli.output import say

CONFIRM_SECONDS_MAX = 86_400
HOST_CODES = frozenset({"address_taken", "bridge_taken", "port_taken", "not_a_bridge"})
"""Codes of errors that pass when others on this host let go of something; they are no wrong configuration."""


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="Configuration file.")],
    confirm: Annotated[
        float | None,
        typer.Option(
            "--confirm",
            metavar="SECONDS",
            min=1,
            max=CONFIRM_SECONDS_MAX,
            help="Undo all network changes after SECONDS unless you run `bridged confirm`.",
        ),
    ] = None,
) -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT.

    Exit status 2 says that the configuration is wrong: another start would end the same.
    """
    from bridged.errors import ConfigurationError

    try:
        raise typer.Exit(load_daemon()(config, confirm))
    except ConfigurationError as error:
        if error.code not in HOST_CODES:
            raise
        say(str(error))
        raise typer.Exit(1) from None


def load_daemon() -> Callable[[Path, float | None], int]:
    """Load `bridged.daemon.run` without what it does not need."""
    # structlog loads rich (3 MB) for coloured tracebacks; without rich they are plain.
    known = sys.modules.get("rich")
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
        if known is not None:
            sys.modules["rich"] = known
    from bridged.daemon import run as run_daemon

    return run_daemon
