"""`bridged revoke` and `bridged kick`: disconnect a peer, for good or for now.

Exit status: 0 done, 1 failed or no such session, 2 wrong use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bridged.cli.ca_failures import ca_failures
from bridged.cli.output import say, show
from bridged.cli.status import DEFAULT_CONFIG, Config, daemon_socket
from bridged.errors import ConfigurationError

PeerName = Annotated[
    str, typer.Argument(metavar="NAME", help="The peer's name, as `bridged status` shows it.")
]


@dataclass(frozen=True, slots=True)
class DaemonPlace:
    """The daemon's socket, and the state folder of its CA. `is_guess`: the socket is the default one."""

    socket: Path
    state: Path
    is_guess: bool


def register(app: typer.Typer) -> None:
    app.command("revoke")(revoke)
    app.command("kick")(kick)


def revoke(
    name: PeerName,
    config: Config = DEFAULT_CONFIG,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="State folder of the CA. Default: the configuration's."),
    ] = None,
) -> None:
    """Revoke a peer's certificate and end its sessions at once. Works without a running daemon, too."""
    end_certificates(name, find_daemon(config, state))


def kick(
    name: PeerName,
    config: Config = DEFAULT_CONFIG,
    tunnel: Annotated[
        str | None, typer.Option("--tunnel", metavar="NAME", help="End sessions of this tunnel only.")
    ] = None,
) -> None:
    """End a peer's sessions at once. It may connect again."""
    from bridged.admin.client import AdminClient

    with AdminClient(daemon_socket(config)) as client:
        ended = client.kick(name, tunnel).ended
    if not ended:
        say(f"{name} has no session; see `bridged status`")
        raise typer.Exit(1)
    show(f"kicked {name}: {sessions(ended)} ended")


def find_daemon(config: Path, state: Path | None) -> DaemonPlace:
    """The daemon that `--config` and `--state` name.

    Raises:
        ConfigurationError: neither exists.
    """
    from bridged.configuration import load_admin
    from bridged.configuration.schema import Admin

    is_default = config == DEFAULT_CONFIG
    if is_default and not config.exists():
        if state is None:
            raise ConfigurationError(f"no file {config}; give `--config FILE` or `--state DIR`")
        return DaemonPlace(Admin().socket, state.absolute(), is_guess=True)
    admin, own = load_admin(config)
    is_guess = is_default and state is not None and state.absolute().resolve() != own.resolve()
    return DaemonPlace(admin.socket, state.absolute() if state else own, is_guess)


def end_certificates(
    name: str, daemon: DaemonPlace, keep: str | None = None, tell: Callable[[str], None] = show
) -> None:
    """Let the running daemon revoke, which ends the sessions; without a daemon, change the CA's files.

    `keep`: serial number of a certificate that stays valid. `tell` prints the result.

    Raises:
        ConfigurationError, PkiError, AdminError, OSError: nothing was revoked.
    """
    from bridged.admin.client import AdminClient, AdminError
    from bridged.pki import EmbeddedCa, PkiError

    with ca_failures():
        try:
            with AdminClient(daemon.socket) as client:
                done = client.revoke(name, daemon.state, keep)
            tell(f"revoked {name}: {certificates(done.revoked)}; {sessions(done.ended)} ended")
            return
        except AdminError as error:
            if error.code.startswith("pki_"):
                raise PkiError(error.code, error.message) from None
            is_other = error.code == "other_state" and daemon.is_guess
            if error.code != "not_running" and not is_other:
                raise
        revoked = EmbeddedCa.open(daemon.state).revoke(name, keep=keep)
    tell(f"revoked {name}: {certificates(revoked)}, in {daemon.state}")
    say(
        f"no daemon of this CA answers on {daemon.socket}, so no session was ended. A daemon with another "
        "socket applies it within an hour, or at once after `bridged reload --config FILE`."
    )


def sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count} sessions"


def certificates(count: int) -> str:
    return "1 certificate" if count == 1 else f"{count} certificates"
