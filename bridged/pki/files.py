"""One writer of the CA at a time. Linux only (flock)."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bridged.errors import BridgedError
from bridged.files import PRIVATE_FILE

LOCK_WAIT_SECONDS: Final = 10.0

_LOCK_POLL_SECONDS: Final = 0.05


class PkiError(BridgedError):
    """The embedded CA cannot do what was asked; nothing was changed."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` alone; the kernel frees it when the holder ends, however it ends.

    Raises:
        PkiError: `pki_locked`: another process holds it for longer than LOCK_WAIT_SECONDS.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise PkiError(
                        "pki_locked", f"{path}: another process works on this CA; try again when it is done"
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
