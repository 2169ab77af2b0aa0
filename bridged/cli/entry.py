"""Where the installed command begins: an interrupt while the modules load ends it without a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Load the command line and run it; exits with its status."""
    try:
        from bridged.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit("bridged: interrupted")  # on stderr, with status 1
    run()
