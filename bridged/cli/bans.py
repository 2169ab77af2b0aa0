"""`bridged ban` and `bridged unban`: keep a name out, whatever certificate or password it has.

Exit status: 0 done, 1 failed or no such ban, 2 wrong use.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from bridged.cli.output import say, show
from bridged.cli.peers import find_daemon, sessions
from bridged.cli.status import DEFAULT_CONFIG, Config
from bridged.errors import BridgedError, ConfigurationError

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The peer's name, as `bridged status` shows it.")]
DaemonState = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="The daemon's state folder. Default: the configuration's."),
]


def register(app: typer.Typer) -> None:
    app.command("ban")(ban)
    app.command("unban")(unban)


def ban(
    name: Name,
    config: Config = DEFAULT_CONFIG,
    state: DaemonState = None,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="As 30m, 12h or 7d. Default: for ever.")
    ] = None,
) -> None:
    """Keep a client out of all tunnels, and end its sessions. Works without a running daemon, too."""
    from bridged.admin.client import AdminClient
    from bridged.runtime.server.bans import Bans

    place = find_daemon(config, state)
    until = 0.0 if duration is None else time.time() + _seconds(duration)
    try:
        Bans(place.state / "bans").ban(name, until)
    except ValueError as error:
        raise ConfigurationError(str(error), key="NAME") from None
    ended = 0
    try:
        with AdminClient(place.socket) as client:
            ended = client.kick(name, None).ended
    except BridgedError as error:
        if error.code != "not_running":
            raise
    show(f"banned {name}: {sessions(ended)} ended")


def unban(name: Name, config: Config = DEFAULT_CONFIG, state: DaemonState = None) -> None:
    """Let a banned client connect again."""
    from bridged.runtime.server.bans import Bans

    if not Bans(find_daemon(config, state).state / "bans").lift(name):
        say(f"{name} is not banned")
        raise typer.Exit(1)
    show(f"{name} may connect again")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if found is None or not int(found[1]):
        raise ConfigurationError(f"{text!r} is no time, as 30m, 12h or 7d", key="--for")
    return float(int(found[1]) * _UNITS[found[2]])
