"""Files that are never half written, private ones only for their owner, and one writer at a time.

Linux only (flock, directory fsync).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bridged.errors import BridgedError, naming

PRIVATE_FILE: Final = 0o600
PUBLIC_FILE: Final = 0o644
PRIVATE_DIRECTORY: Final = 0o700
LOCK_WAIT_SECONDS: Final = 10.0

_LOCK_POLL_SECONDS: Final = 0.05


class PkiError(BridgedError):
    """The embedded CA cannot do what was asked; nothing was changed."""


def write_atomic(path: Path, content: bytes, mode: int = PRIVATE_FILE) -> None:
    """Write all of `content` or nothing; readers see the old file or the new one, also after a crash.

    The file is never readable by more than `mode` allows, not even for a moment.

    Raises:
        OSError: the folder is missing, full or not writable; `filename` is `path`.
    """
    with naming(path):
        _write_beside(path, content, mode)
        sync_directory(path.parent)


def _write_beside(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_private_directory(path: Path) -> None:
    """Make `path` (mode 0700) and its parents where missing; an existing one is left as it is."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Make renames in `path` last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
