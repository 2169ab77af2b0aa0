"""The command `bridged`: joins the command groups, and turns errors into one line and an exit status.

Exit status: 0 done, 1 failed at run time, 2 wrong use or configuration. Messages go to stderr, results
to stdout. A command imports what it needs when it runs; this keeps `bridged --help` quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bridged import __version__
from bridged.cli import (
    bans,
    check,
    explain,
    exporting,
    importing,
    join,
    passwords,
    peers,
    pki,
    run,
    stations,
    status,
    tap,
    wrap_keys,
)
from bridged.cli.output import say, show, show_crash
from bridged.errors import BridgedError, ConfigurationError, ConfigurationErrors

EXIT_FAILED = 1
EXIT_WRONG_USE = 2
_TYPER_INTERRUPTED = 130

app = typer.Typer(
    name="bridged",
    help="Join remote LANs at layer 2, over the OpenVPN wire protocol.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from bridged.dataplane import native

        missing = native.unavailable()
        data_plane = f"portable data plane, slower ({missing})" if missing else "native data plane"
        show(f"bridged {__version__}, {data_plane}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print version and data plane, and exit.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    del version  # its callback has answered


run.register(app)
check.register(app)
status.register(app)
pki.register(app)
exporting.register(app)
importing.register(app)
join.register(app)
peers.register(app)
bans.register(app)
passwords.register(app)
explain.register(app)
app.add_typer(tap.app, name="tap")
app.add_typer(stations.app, name="stations")
app.add_typer(wrap_keys.app, name="wrap-key")


def main() -> None:
    """Run the command line and exit with its status."""
    sys.excepthook = show_crash
    try:
        app()
    except SystemExit as ending:
        if ending.code != _TYPER_INTERRUPTED:
            raise
        say("bridged: interrupted")
        sys.exit(EXIT_FAILED)
    except ConfigurationError as error:
        for one in error.errors if isinstance(error, ConfigurationErrors) else (error,):
            say(str(one))
        sys.exit(EXIT_WRONG_USE)
    except BridgedError as error:
        say(f"bridged: {error}")
        sys.exit(EXIT_FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"bridged: {where}{error.strerror or error}")
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        say("bridged: interrupted")
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
