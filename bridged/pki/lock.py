"""Lets one process at a time change the CA. Linux only (flock)."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bridged.files import PRIVATE_FILE, give_to_owner_of
from bridged.pki.errors import PkiError

LOCK_WAIT_SECONDS: Final = 10.0

_LOCK_POLL_SECONDS: Final = 0.05


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` exclusively. The kernel frees it when the holding process ends.

    Raises:
        PkiError: `pki_locked`: another process holds it for longer than LOCK_WAIT_SECONDS.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        give_to_owner_of(path.parent, descriptor)
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise PkiError(
                        "pki_locked",
                        f"{path}: another process is changing this CA; try again later",
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
