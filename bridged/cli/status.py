"""`bridged status`, `bridged confirm` and `bridged reload`: ask the running daemon."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from bridged.admin.models import BridgeAnswer, PeerAnswer, StatusAnswer, TunnelAnswer

DEFAULT_CONFIG: Final = Path("/etc/bridged/bridged.yaml")
UNKNOWN: Final = "-"
RELOAD_SECONDS: Final = 60.0
"""A reload may wait for farewells and for adapters."""

Config = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help="The daemon's configuration: names its socket."),
]

BRIDGE_COLUMNS: Final = ("bridge", "mac", "mtu", "origin", "ports")
PEER_COLUMNS: Final = (
    "peer",
    "state",
    "endpoint",
    "cipher",
    "TLS",
    "key group",
    "received",
    "sent",
    "drops",
    "FDB",
    "last seen",
)


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
    if sys.stdout.isatty():
        _print_rich(answer)
    else:
        _print_plain(answer)


def confirm(config: Config = DEFAULT_CONFIG) -> None:
    """Keep what `bridged run --confirm` has changed."""
    from bridged.admin.client import AdminClient

    with AdminClient(_socket(config)) as client:
        confirmed = client.confirm().confirmed
    typer.echo("confirmed" if confirmed else "nothing waits for confirmation")


def reload(config: Config = DEFAULT_CONFIG) -> None:
    """Have the running daemon read its configuration anew; whatever stays the same goes on undisturbed."""
    from bridged.admin.client import AdminClient

    with AdminClient(_socket(config), RELOAD_SECONDS) as client:
        done = client.reload()
    if done.outcome == "rejected":
        typer.echo(f"rejected: {done.detail}", err=True)
        raise typer.Exit(1)
    typer.echo("applied" if done.outcome == "applied" else f"applied; started anew: {done.detail}")


def _socket(config: Path) -> Path:
    """The daemon's socket; the built-in default where the default file does not exist."""
    from bridged.configuration import load
    from bridged.configuration.schema import Admin

    if config == DEFAULT_CONFIG and not config.exists():
        return Admin().socket
    return load(config).admin.socket


def head_line(answer: StatusAnswer) -> str:
    return f"bridged {answer.version}, pid {answer.pid}, up {span(answer.now - answer.started)}"


def warning_lines(answer: StatusAnswer) -> list[str]:
    lines: list[str] = []
    if answer.confirm_deadline is not None:
        left = max(0.0, answer.confirm_deadline - answer.now)
        lines.append(f"not confirmed: taken back in {span(left)} unless you run `bridged confirm`")
    if answer.reload.outcome == "rejected":
        lines.append(f"the configuration was not reloaded: {answer.reload.detail}")
    lines += [f"bridge {row.name}: {clean(row.problem)}" for row in answer.bridges if row.problem]
    for item in answer.duties.undone:
        what = " ".join(word for word in (item.duty, item.subject) if word)
        since = span(max(0.0, answer.now - item.since))
        lines.append(f"not done for {since}: {clean(what)}: {clean(item.reason)}")
    return lines


def tunnel_lines(tunnel: TunnelAnswer) -> list[str]:
    """What one tunnel is, without its peers."""
    where = (
        f"listens on {tunnel.local_endpoint or UNKNOWN}"
        if tunnel.role == "server"
        else f"remote {tunnel.remote or UNKNOWN}, local {tunnel.local_endpoint or UNKNOWN}"
    )
    lines = [
        f"tunnel {clean(tunnel.name)}: {tunnel.role}, {tunnel.state}, {tunnel.transport}, {where}",
        f"  adapter {tunnel.tap or UNKNOWN} ({tunnel.tap_mac or UNKNOWN}) in {tunnel.bridge},"
        f" wrap {tunnel.wrap}",
    ]
    plane = tunnel.dataplane
    if plane is not None:
        offloads = ", ".join(name for name, on in plane.offloads.items() if on) or "none"
        dropped = sum(count for reasons in plane.drops.values() for count in reasons.values())
        lines.append(
            f"  data plane {plane.dataplane}{f' ({plane.aead})' if plane.aead else ''}, offloads {offloads},"
            f" FDB {plane.fdb_entries} of {plane.fdb_capacity}, drops {dropped}"
        )
    lines += [
        f"  {kind} goes frame by frame: {clean(reason)}"
        for kind, reason in tunnel.coalescing.items()
        if reason != "joined"
    ]
    lines.append(f"  peers {sum(peer.sessions for peer in tunnel.peers)} of {tunnel.peers_limit}")
    if tunnel.last_error:
        lines.append(f"  last error: {clean(tunnel.last_error)}")
    return lines


def bridge_row(bridge: BridgeAnswer) -> list[str]:
    missing = set(bridge.missing)
    ports = ", ".join(
        f"{name}{'' if good else ' (missing)' if name in missing else ' (down)'}"
        for name, good in bridge.ports.items()
    )
    origin = "adopted" if bridge.adopted else "made"
    mtu = str(bridge.mtu) if bridge.mtu is not None else UNKNOWN
    return [bridge.name, bridge.mac or UNKNOWN, mtu, origin, ports or "none"]


def peer_row(peer: PeerAnswer, now: float) -> list[str]:
    counters = peer.counters
    drops = sum(count for reasons in counters.drops.values() for count in reasons.values())
    seen = f"{span(max(0.0, now - peer.last_seen))} ago" if peer.last_seen is not None else UNKNOWN
    state = "connected" if peer.connected else "away"
    if peer.sessions > 1:
        state += f" ×{peer.sessions}"
    return [
        clean(peer.name),
        state,
        peer.endpoint or UNKNOWN,
        peer.cipher or UNKNOWN,
        peer.tls_version or UNKNOWN,
        peer.key_group or UNKNOWN,
        _traffic(counters.frames.get("receive", {}), counters.bytes.get("receive", {})),
        _traffic(counters.frames.get("transmit", {}), counters.bytes.get("transmit", {})),
        str(drops),
        str(peer.fdb_entries),
        seen,
    ]


def _traffic(frames: dict[str, int], octets: dict[str, int]) -> str:
    return f"{sum(frames.values())} / {size(sum(octets.values()))}"


def size(octets: float) -> str:
    """Octets for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} TB"


def span(seconds: float) -> str:
    """Seconds for people: the two largest units."""
    whole = int(seconds)
    for unit, length, small, divisor in (
        ("d", 86_400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // divisor} {small}"
    return f"{whole} s"


def clean(text: str) -> str:
    """Text that came from a peer, without control characters that a terminal would obey."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _print_plain(answer: StatusAnswer) -> None:
    typer.echo(head_line(answer))
    for warning in warning_lines(answer):
        typer.echo(warning)
    _print_columns([BRIDGE_COLUMNS, *(bridge_row(bridge) for bridge in answer.bridges)])
    for tunnel in answer.tunnels:
        typer.echo("")
        for line in tunnel_lines(tunnel):
            typer.echo(line)
        if tunnel.peers:
            rows = [peer_row(peer, answer.now) for peer in tunnel.peers]
            _print_columns([PEER_COLUMNS, *rows], indent="  ")


def _print_columns(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo(indent + "  ".join(cells).rstrip())


def _print_rich(answer: StatusAnswer) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False)

    def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        grid = Table(header_style="bold", expand=False)
        for column in columns:
            grid.add_column(column, overflow="fold")
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        console.print(grid)

    console.print(Text(head_line(answer), style="bold"))
    for warning in warning_lines(answer):
        console.print(Text(warning, style="bold red"))
    table(BRIDGE_COLUMNS, [bridge_row(bridge) for bridge in answer.bridges])
    for tunnel in answer.tunnels:
        first, *rest = tunnel_lines(tunnel)
        console.print(Text(first, style="bold green" if tunnel.up else "bold red"))
        for line in rest:
            console.print(Text(line))
        if tunnel.peers:
            table(PEER_COLUMNS, [peer_row(peer, answer.now) for peer in tunnel.peers])
