"""Several test processes on one machine, and some tests that need it for themselves.

`make test` runs pytest with several workers (pytest-xdist), because most system and interop tests wait: for
a retransmission, a ping, a program that ends. A test that loads the machine itself carries the mark `alone`:
it starts when the tests that are running have ended, and nothing starts beside it. A test that only bounds a
time carries `measures` (tests/measuring.py).
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A test that runs pytest has its place already: those inside would wait until it gives that up.
_IS_INSIDE_A_TEST = "PYTEST_CURRENT_TEST" in os.environ
_RUN = "" if _IS_INSIDE_A_TEST else os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
_PREFIX = "bridged-tests-"


def _file(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"{_PREFIX}{_RUN}.{name}"


@contextmanager
def _held(name: str, how: int) -> Iterator[None]:
    descriptor = os.open(_file(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def place(*, alone: bool) -> Iterator[None]:
    """Wait for a place on the machine, and hold it; nothing to wait for where there is one process only."""
    if not _RUN:
        yield
    elif alone:
        # Who holds the gate lets nobody in who comes later: those who measure are not kept waiting for ever.
        with _held("gate", fcntl.LOCK_EX), _held("machine", fcntl.LOCK_EX):
            yield
    else:
        with _held("gate", fcntl.LOCK_EX):
            pass
        with _held("machine", fcntl.LOCK_SH):
            yield


def remove_files(run: str) -> None:
    """At the end of a run with workers."""
    for name in ("gate", "machine"):
        (Path(tempfile.gettempdir()) / f"{_PREFIX}{run}.{name}").unlink(missing_ok=True)
