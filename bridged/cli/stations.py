"""`bridged stations list|add|remove`: the stations that a tunnel's switch knows, and static ones.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bridged.cli.output import hand_over, say, show, visible_tree
from bridged.cli.status import DEFAULT_CONFIG, Config, daemon_socket

if TYPE_CHECKING:
    from bridged.admin.models import FdbAnswer

app = typer.Typer(name="stations", help="List the stations of a tunnel; put one behind a peer for good.")

TunnelName = Annotated[str, typer.Argument(metavar="TUNNEL", help="The tunnel's name.")]
Address = Annotated[str, typer.Argument(metavar="MAC", help="The station's address.")]


@app.command("list")
def list_command(
    tunnel: TunnelName,
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List the stations of a tunnel, and where they are."""
    from bridged.admin.client import AdminClient
    from bridged.admin.models import FdbAnswer

    with AdminClient(daemon_socket(config)) as client:
        if as_json:
            hand_over(json.dumps(client.fdb_json(tunnel), indent=2) + "\n")
            return
        answer = FdbAnswer.model_validate(visible_tree(client.fdb_json(tunnel)))
    rows = _rows(answer)
    if not rows:
        say(f"{tunnel} knows no station")
        return
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        show("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if answer.total > len(answer.stations):
        say(f"{answer.total - len(answer.stations)} more are not shown")


@app.command("add")
def add_command(
    tunnel: TunnelName,
    address: Address,
    peer: Annotated[
        str | None, typer.Option("--peer", metavar="NAME", help="The peer that it is behind.")
    ] = None,
    lan: Annotated[
        bool, typer.Option("--lan", help="It is in this LAN: no peer may claim its address.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Put a station behind a peer, or into the LAN, until you remove it or the tunnel restarts.

    The station neither ages nor moves: frames with its address from elsewhere are dropped (loop_guard).
    """
    from bridged.admin.client import AdminClient

    if lan == (peer is not None):
        raise typer.BadParameter("give either --peer NAME or --lan")
    with AdminClient(daemon_socket(config)) as client:
        added = client.add_station(tunnel, address, peer)
    where = "in the LAN" if added.peer is None else f"behind {added.peer}"
    waits = "" if added.installed else "; it is installed when that peer connects"
    show(f"{added.address} is {where}{waits}")


@app.command("remove")
def remove_command(tunnel: TunnelName, address: Address, config: Config = DEFAULT_CONFIG) -> None:
    """Forget a station, static or learned. The switch learns it again from its next frame."""
    from bridged.admin.client import AdminClient

    with AdminClient(daemon_socket(config)) as client:
        removed = client.remove_station(tunnel, address).removed
    if not removed:
        say(f"{tunnel} does not know {address}")
        raise typer.Exit(1)
    show(f"removed {address}")


def _rows(answer: FdbAnswer) -> list[tuple[str, str, str]]:
    known = [
        (row.address, row.peer or "LAN", "static" if row.static else f"heard {row.age:.0f} s ago")
        for row in answer.stations
    ]
    return known + [(row.address, row.peer or "LAN", "static, not connected") for row in answer.waiting]
