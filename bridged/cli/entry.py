"""Entry of the installed command. An interrupt while modules load ends it without a traceback."""

from __future__ import annotations

import sys
from typing import Final

COMPLETE_NAMES: Final = "complete-names"
"""The first argument with which completions ask for names; no command of `bridged --help`."""


def main() -> None:
    """Load and run the command line; exit with its status."""
    try:
        if sys.argv[1:2] == [COMPLETE_NAMES]:
            from bridged.cli.names import print_names

            print_names(sys.argv[2:])
            return
        from bridged.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit("bridged: interrupted")  # on stderr, with status 1
    run()
