"""Entry of the installed command. An interrupt while modules load ends it without a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Load and run the command line; exit with its status."""
    try:
        from bridged.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit("bridged: interrupted")  # on stderr, with status 1
    run()
