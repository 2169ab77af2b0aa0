"""`bridged tap list|show|create|delete`: manage TAP adapters by hand.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong use.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from bridged.cli.output import hand_over, say, show
from bridged_tap import (
    TXQUEUELEN_DEFAULT,
    AdapterInfo,
    MacAddress,
    MacMode,
    MacPolicy,
    TapError,
    TapSettingsError,
    adapter_info,
    choose_mac,
    create_tap,
    delete_adapter,
    list_adapters,
    load_mac,
    store_mac,
)

app = typer.Typer(name="tap", help="Show, create and delete TAP adapters.")

_STATE_DIRECTORY: Final = Path("/var/lib/bridged")
_COLUMNS: Final = ("name", "mac", "mtu", "state", "master", "persistent", "queues", "holder")

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
TapName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the adapter.")]


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the TAP adapters of this network namespace."""
    with _failures():
        taps = [adapter for adapter in list_adapters() if adapter.mode == "tap"]
    if as_json:
        hand_over(json.dumps([_as_json(tap) for tap in taps], indent=2) + "\n")
        return
    if not taps:
        say("no TAP adapters")
        return
    rows = [_COLUMNS, *(_row(tap) for tap in taps)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        show("  ".join(cells).rstrip())


@app.command("show")
def show_command(name: TapName, as_json: Json = False) -> None:
    """Show one TAP adapter: its settings, its bridge and the process that holds it."""
    with _failures():
        tap = _tap_info(name)
    if as_json:
        hand_over(json.dumps(_as_json(tap), indent=2) + "\n")
        return
    fields = _as_json(tap)
    width = max(map(len, fields))
    for key, value in fields.items():
        show(f"{key.ljust(width)}  {_as_text(value)}")


@app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name. %d becomes a free number.")],
    mac: Annotated[str, typer.Option(help="ephemeral, random, stable, or a MAC address.")] = "ephemeral",
    state: Annotated[
        Path, typer.Option(help="Folder in which `--mac random` keeps addresses.")
    ] = _STATE_DIRECTORY,
    mtu: Annotated[int | None, typer.Option(help="Largest payload of a frame, 68 to 65521 bytes.")] = None,
    txqueuelen: Annotated[
        int, typer.Option(help="Length of the kernel's queue, in frames.")
    ] = TXQUEUELEN_DEFAULT,
    owner: Annotated[str | None, typer.Option(help="User (name or id) who may attach to it.")] = None,
    group: Annotated[str | None, typer.Option(help="Group (name or id) that may attach to it.")] = None,
    multi_queue: Annotated[bool, typer.Option("--multi-queue", help="Allow several queues.")] = False,
) -> None:
    """Create a persistent TAP adapter and print its name."""
    with _failures():
        policy = MacPolicy.parse(mac)
        address = choose_mac(policy, name, state, keep=False)
        made = create_tap(
            name,
            mac=address,
            mtu=mtu,
            txqueuelen=txqueuelen,
            owner=owner,
            group=group,
            multi_queue=multi_queue,
        )
        if policy.mode is MacMode.RANDOM:
            _keep_mac(state, made, address)
        show(made)


@app.command("delete")
def delete_command(name: TapName) -> None:
    """Delete a persistent TAP adapter. Refused while a process holds it."""
    with _failures():
        _tap_info(name)
        delete_adapter(name)


def _keep_mac(state: Path, name: str, address: MacAddress) -> None:
    """Keep the address of a new adapter. If that fails, the adapter goes again."""
    try:
        if load_mac(state, name) != address:
            store_mac(state, name, address)
    except TapError:
        delete_adapter(name)
        raise


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except TapError as error:
        say(f"bridged: {error.message}")
        raise typer.Exit(2 if isinstance(error, TapSettingsError) else 1) from error


def _tap_info(name: str) -> AdapterInfo:
    info = adapter_info(name)
    if info.mode != "tap":
        raise TapError("tap_not_a_tap", f"{name} is a TUN device, not a TAP adapter")
    return info


def _as_json(tap: AdapterInfo) -> dict[str, str | int | bool | None]:
    fields = {field.name: getattr(tap, field.name) for field in dataclasses.fields(tap)}
    del fields["mode"]
    return fields | {"mac": str(tap.mac)}


def _as_text(value: str | int | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _row(tap: AdapterInfo) -> tuple[str, ...]:
    holder = f"{tap.holder_pid or '?'} {tap.holder_command or ''}".strip() if tap.held else "-"
    return (
        tap.name,
        str(tap.mac),
        str(tap.mtu),
        "up" if tap.up else "down",
        tap.master or "-",
        "yes" if tap.persistent else "no",
        "1" if tap.queues is None else f"multi ({tap.queues})",
        holder,
    )


if __name__ == "__main__":
    app()
