"""`bridged status`, `bridged confirm` and `bridged reload`: ask the running daemon."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from bridged.admin.models import StatusAnswer

DEFAULT_CONFIG: Final = Path("/etc/bridged/bridged.yaml")
RELOAD_SECONDS: Final = 60.0
"""A reload may wait for farewells and for adapters."""

Config = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help="The daemon's configuration: names its socket."),
]


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("confirm")(confirm)
    app.command("reload")(reload)


def status(
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Show bridges, tunnels and peers of the running daemon."""
    from bridged.admin.client import AdminClient

    with AdminClient(_socket(config)) as client:
        if as_json:
            import json

            typer.echo(json.dumps(client.status_json(), indent=2))
            return
        answer = client.status()
    _print(answer)


def confirm(config: Config = DEFAULT_CONFIG) -> None:
    """Keep what `bridged run --confirm` has changed."""
    from bridged.admin.client import AdminClient

    with AdminClient(_socket(config)) as client:
        confirmed = client.confirm().confirmed
    typer.echo("confirmed" if confirmed else "nothing waits for confirmation")


def reload(config: Config = DEFAULT_CONFIG) -> None:
    """Have the running daemon read its configuration again; what has not changed is not disturbed."""
    from bridged.admin.client import AdminClient

    with AdminClient(_socket(config), RELOAD_SECONDS) as client:
        done = client.reload()
    if done.outcome == "rejected":
        typer.echo(f"rejected: {done.detail}", err=True)
        raise typer.Exit(1)
    typer.echo("applied" if done.outcome == "applied" else f"applied; restarted: {done.detail}")


def _socket(config: Path) -> Path:
    """The daemon's socket; the built-in default where the default file does not exist."""
    from bridged.configuration import load
    from bridged.configuration.schema import Admin

    if config == DEFAULT_CONFIG and not config.exists():
        return Admin().socket
    return load(config).admin.socket


def _print(answer: StatusAnswer) -> None:
    """Colours go to a terminal only."""
    from bridged.cli.status_text import bridge_lines, head_line, tunnel_lines, warning_lines

    typer.secho(head_line(answer), bold=True)
    for warning in warning_lines(answer):
        typer.secho(warning, fg="red")
    for bridge in answer.bridges:
        _print_part(bridge_lines(bridge), "red" if bridge.problem else None)
    for tunnel in answer.tunnels:
        _print_part(tunnel_lines(tunnel, answer.now), None if tunnel.up else "red")


def _print_part(lines: Iterable[str], colour: str | None) -> None:
    typer.echo("")
    for number, line in enumerate(lines):
        typer.secho(line, bold=number == 0, fg=None if number else colour)
