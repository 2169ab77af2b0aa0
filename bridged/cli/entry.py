"""Entry of the installed command. An interrupt while modules load ends it without a traceback."""

from __future__ import annotations

import gc
import sys
from typing import Final

COMPLETE_NAMES: Final = "complete-names"
"""The first argument with which completions ask for names; no command of `bridged --help`."""

LOADING_THRESHOLD: Final = 1_000_000
"""New objects between two collections. Those of modules stay: looking through them finds nothing."""


def main() -> None:
    """Load and run the command line; exit with its status."""
    gc.set_threshold(LOADING_THRESHOLD)
    try:
        if sys.argv[1:2] == [COMPLETE_NAMES]:
            from bridged.cli.names import print_names

            print_names(sys.argv[2:])
            return
        from bridged.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit("bridged: interrupted")  # on stderr, with status 1
    run()
