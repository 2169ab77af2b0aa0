"""`bridged run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

CONFIRM_SECONDS_MAX = 86_400


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
    """Run the daemon in the foreground until SIGTERM or SIGINT."""
    _keep_log_library_small()
    from bridged.daemon import run as run_daemon

    raise typer.Exit(run_daemon(config, confirm))


def _keep_log_library_small() -> None:
    """structlog loads rich, 3 MB, for coloured tracebacks; without it they are plain."""
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]
    assert structlog
