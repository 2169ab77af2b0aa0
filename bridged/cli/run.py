"""`bridged run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    raise typer.Exit(load_daemon()(config, confirm))


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
