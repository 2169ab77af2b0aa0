"""Shared by the commands: options, and writing results to a file or to standard output."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from bridged.cli.output import hand_over, say
from bridged.errors import ConfigurationError

STANDARD_OUTPUT = Path("-")


def _destination(value: Path | None) -> Path | None:
    return None if value == STANDARD_OUTPUT else value


BridgeName = Annotated[str, typer.Option("--bridge", help="Name of the kernel bridge.")]
Ports = Annotated[
    list[str] | None, typer.Option("--port", help="LAN interface that joins the bridge; may be repeated.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        callback=_destination,
        help="Write to FILE, which must not exist yet. Default: standard output, also written `-`.",
    ),
]


def holds(output: Path, text: str) -> bool:
    """Whether the file exists with exactly this content."""
    try:
        return output.read_bytes() == text.encode()
    except OSError:
        return False


def refuse_existing(output: Path) -> None:
    """Refuse a path that cannot be written, before the command changes anything.

    Raises:
        ConfigurationError: the file exists, or its folder is missing or not writable.
    """
    if output.exists() or output.is_symlink():
        raise ConfigurationError("already exists; remove it, or choose another --output", file=output)
    if not output.absolute().parent.is_dir():
        raise ConfigurationError(f"no folder {output.absolute().parent}", file=output)
    if not os.access(output.absolute().parent, os.W_OK):
        raise ConfigurationError(f"folder {output.absolute().parent} is not writable", file=output)


def write(output: Path | None, text: str, *, private: bool) -> None:
    """Write `text` to a new file, or to standard output. `private`: only its owner may read the file.

    Raises:
        OSError: the file cannot be written; `filename` names it.
    """
    from bridged.pki import PRIVATE_FILE, PUBLIC_FILE, write_atomic

    if output is None:
        if private:
            _warn_of_redirection()
        hand_over(text)
    else:
        write_atomic(output, text.encode(), PRIVATE_FILE if private else PUBLIC_FILE)


def say_written(output: Path) -> None:
    """What was written, and the command that puts it to work: it may be a drop-in of a running daemon."""
    from bridged.configuration.drop_ins import DROP_INS, MAIN_NAME

    main = output.absolute().parent.parent / MAIN_NAME
    is_drop_in = output.suffix == ".yaml" and output.absolute().parent.name == DROP_INS and main.exists()
    where = "" if main == Path("/etc/bridged") / MAIN_NAME else f" --config {shlex.quote(str(main))}"
    load = f"load it with `bridged reload{where}`"
    start = f"start it with `bridged run --config {shlex.quote(str(output))}`"
    say(f"wrote {output}; {load if is_drop_in else start}")


def _warn_of_redirection() -> None:
    """Warn if `> FILE` made a file that others may read: the shell's umask decides its mode."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISREG(mode) and mode & 0o077:
        say("warning: the output contains a private key, and others may read its file; run `chmod 600` on it")


def one_line(path: Path | str) -> str:
    """The path in a form that is safe in a comment."""
    text = str(path)
    return text if text.isprintable() else json.dumps(text)
