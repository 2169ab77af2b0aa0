"""Writes files whole or not at all, and private ones for their owner only.

Linux only (directory fsync). A link in a file's place is never followed or written through.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from bridged.errors import naming

PRIVATE_FILE: Final = 0o600
PUBLIC_FILE: Final = 0o644
PRIVATE_DIRECTORY: Final = 0o700


def write_atomic(path: Path, content: bytes, mode: int = PRIVATE_FILE, *, durable: bool = True) -> None:
    """Write all of `content` or nothing. Readers see the old file or the new one.

    The file never allows more than `mode`, not even for a moment. `durable`: wait for the disk, so that the
    file survives a crash of the machine.

    Raises:
        OSError: the folder is missing, full or not writable; `filename` is `path`.
    """
    with naming(path):
        _write_beside(path, content, mode, durable)
        if durable:
            sync_directory(path.parent)


def _write_beside(path: Path, content: bytes, mode: int, durable: bool) -> None:
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_private_directory(path: Path) -> None:
    """Make `path` (mode 0700) and its missing parents. An existing folder is not changed."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Make renames in `path` survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
