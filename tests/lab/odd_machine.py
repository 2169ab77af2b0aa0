"""Another kernel release and a wrong clock for one program: a library that is loaded before its libc."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from tests.lab.processes import run

SOURCE = Path(__file__).with_suffix(".c")


def odd_machine(folder: Path, *, release: str, today: datetime) -> dict[str, str]:
    """The environment of a program to which the kernel is `release`, and to which it is `today`.

    Raises:
        CommandError: gcc refuses.
    """
    library = folder / "odd_machine.so"
    run("gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE))
    seconds = int(today.replace(tzinfo=UTC).timestamp() - time.time())
    return {"LD_PRELOAD": str(library), "ODD_RELEASE": release, "ODD_SECONDS": str(seconds)}
