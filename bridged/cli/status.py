"""`bridged status`, `bridged confirm` and `bridged reload`: ask the running daemon."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bridged.cli.output import hand_over, say, show, visible_tree

if TYPE_CHECKING:
    from bridged.admin.models import StatusAnswer

DEFAULT_CONFIG: Final = Path("/etc/bridged/bridged.yaml")
RELOAD_SECONDS: Final = 60.0
"""Time limit: a reload may wait for farewells and for adapters."""

Config = Annotated[
    Path,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The daemon's configuration, which names its socket."
    ),
]


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("confirm")(confirm)
    app.command("reload")(reload)


def status(
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Show bridges, tunnels and peers of the running daemon, problems first.

    docs/troubleshooting.md explains how to solve them.
    """
    from bridged.admin.client import AdminClient
    from bridged.admin.models import StatusAnswer

    with AdminClient(daemon_socket(config)) as client:
        if as_json:
            import json

            hand_over(json.dumps(client.status_json(), indent=2) + "\n")
            return
        told = visible_tree(client.status_json())
    _print(StatusAnswer.model_validate(told))


def confirm(config: Config = DEFAULT_CONFIG) -> None:
    """Keep the network changes of `bridged run --confirm`."""
    from bridged.admin.client import AdminClient

    with AdminClient(daemon_socket(config)) as client:
        confirmed = client.confirm().confirmed
    show("confirmed" if confirmed else "nothing waits for confirmation")


def reload(config: Config = DEFAULT_CONFIG) -> None:
    """Reload the configuration. Unchanged tunnels keep running."""
    from bridged.admin.client import AdminClient

    with AdminClient(daemon_socket(config), RELOAD_SECONDS) as client:
        done = client.reload()
    if done.outcome == "rejected":
        say(f"rejected: {done.detail}")
        raise typer.Exit(1)
    show("applied" if done.outcome == "applied" else f"applied; restarted: {done.detail}")


def daemon_socket(config: Path) -> Path:
    """The daemon's socket; the built-in default if the default file does not exist.

    Mistakes elsewhere in the file do not matter: the daemon may run with an earlier version of it.

    Raises:
        ConfigurationErrors: the file does not say where the socket is.
    """
    from bridged.configuration import load_admin
    from bridged.configuration.schema import Admin

    if config == DEFAULT_CONFIG and not config.exists():
        return Admin().socket
    return load_admin(config)[0].socket


def _print(answer: StatusAnswer) -> None:
    """Print the status; colours appear on a terminal only."""
    from bridged.cli.status_text import bridge_lines, head_line, tunnel_lines, warning_lines

    show(head_line(answer), bold=True)
    for warning in warning_lines(answer):
        show(warning, fg="red")
    for bridge in answer.bridges:
        _print_part(bridge_lines(bridge), "red" if bridge.problem else None)
    for tunnel in answer.tunnels:
        _print_part(tunnel_lines(tunnel, answer.now), None if tunnel.up else "red")


def _print_part(lines: Iterable[str], colour: str | None) -> None:
    show()
    for number, line in enumerate(lines):
        show(line, bold=number == 0, fg=None if number else colour)
