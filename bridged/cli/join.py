"""`bridged join`: a client's configuration from an OpenVPN profile.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use or a bad file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridged.cli.files import Output, Ports, one_line
from bridged.cli.importing import BridgeOption, PasswordFile, State, tunnel_name, write_configuration
from bridged.cli.materials import Materials, read_octets
from bridged.cli.output import say
from bridged.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    app.command("join")(join)


def join(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Client profile (.ovpn) of an OpenVPN TAP server.")
    ],
    bridge: BridgeOption = None,
    port: Ports = None,
    state: State = None,
    password_file: PasswordFile = None,
    output: Output = None,
) -> None:
    """Make a client's configuration from an .ovpn file."""
    from bridged.profiles import parse_profile
    from bridged.profiles.text import decode_text

    profile = parse_profile(decode_text(read_octets(file), str(file)), str(file))
    chosen = bridge or profile.bridge
    if chosen is None:
        raise ConfigurationError("which bridge does the tunnel join? Give `--bridge NAME`", key="--bridge")
    for notice in profile.notices:
        say(f"{file}:{notice.line}: warning: {notice.text}" if notice.line else f"{file}: {notice.text}")
    write_configuration(
        profile,
        Materials(profile, file, password_file),
        name=tunnel_name(file),
        bridge=chosen,
        ports=port or [],
        state=state,
        output=output,
        which=f"A client of {profile.remotes[0]}, made by `bridged join` from {one_line(file.name)}.",
    )
