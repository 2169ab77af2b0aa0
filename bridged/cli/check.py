"""`bridged check` checks a configuration or prints its schema; `show-config` prints the merged files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridged.cli.output import hand_over, say, show
from bridged.cli.status import DEFAULT_CONFIG

if TYPE_CHECKING:
    from bridged.configuration import Configuration


def register(app: typer.Typer) -> None:
    app.command("check")(check)
    app.command("show-config")(show_config)


def check(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help=f"Configuration file. Default: {DEFAULT_CONFIG}.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of the file, and check nothing.")
    ] = False,
) -> None:
    """Check a configuration and its drop-ins. Exit status 0: usable; 2: every error is on stderr."""
    if schema and file is not None:
        raise typer.BadParameter("give either FILE or --schema")
    if schema:
        _print_schema()
        return
    file = file or DEFAULT_CONFIG
    from bridged.catalogue.counters import SLOWING_HAZARDS
    from bridged.configuration import find_warnings, load
    from bridged.configuration.drop_ins import find_unread, find_writable
    from bridged.configuration.problems import dotted
    from bridged.configuration.secrets import find_exposed_secrets
    from bridged.errors import ConfigurationErrors
    from bridged.runtime.site.bridges import tunnel_destinations
    from bridged.runtime.site.host_warnings import host_warnings, refuse_own_servers
    from bridged.runtime.tunnels.tunnel_credentials import find_ended, find_unusable
    from bridged.runtime.watchers.host_hazards import (
        passing_hazards,
        standing_hazards,
        wan_hazards,
        wan_links,
    )
    from bridged.units import UnixSeconds

    configuration = load(file)
    refuse_own_servers(configuration)
    warnings = [*find_warnings(configuration), *find_exposed_secrets(configuration)]
    warnings += [*find_ended(configuration, UnixSeconds(time.time())), *host_warnings(configuration)]
    for unread in find_unread(file):
        say(f"{unread}: warning: is not read: drop-ins end in .yaml")
    for writable in find_writable(file):
        say(f"{writable}: warning: everybody may write it; run `chmod o-w {writable}`")
    for path, text in warnings:
        say(f"{file}: {dotted(path)}: warning: {text}")
    hazards = (
        standing_hazards() | passing_hazards() | wan_hazards(wan_links(tunnel_destinations(configuration)))
    )
    for kind, text in hazards.items():
        say(f"this host: {'note' if kind in SLOWING_HAZARDS else 'warning'}: {text}")
    if unusable := find_unusable(configuration):
        raise ConfigurationErrors(unusable)
    show("OK")
    for line in _summary(configuration):
        show(line)


def show_config(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Configuration file.")] = DEFAULT_CONFIG,
) -> None:
    """Print what the configuration and its drop-ins merge to, and where each value is from. Hides keys."""
    from bridged.configuration.load import load_merged
    from bridged.configuration.merged_text import merged_text

    hand_over(merged_text(load_merged(file)))


def _print_schema() -> None:
    import json

    from bridged.configuration import schema_json

    hand_over(json.dumps(schema_json(), indent=2) + "\n")


def _summary(configuration: Configuration) -> list[str]:
    from bridged.configuration.check import bound_by
    from bridged.configuration.tunnel import tap_name

    lines = []
    for name, bridge in configuration.bridges.items():
        lines.append(f"bridge {name}: ports {', '.join(bridge.ports) or 'none'}")
    for name, tunnel in configuration.tunnels.items():
        where = (
            f"listens on {', '.join(str(endpoint) for _, endpoint in bound_by(tunnel))}"
            if tunnel.role == "server"
            else f"connects to {', '.join(tunnel.remotes)}"
        )
        adapter = tap_name(name, tunnel)
        lines.append(f"tunnel {name}: {tunnel.role}, {adapter} in {tunnel.bridge}, {where}")
    return lines
