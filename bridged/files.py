"""Files that are never half written, and private ones only for their owner.

Linux only (directory fsync). No link that stands in a file's place is ever followed or written through.
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
    """Write all of `content` or nothing; readers see the old file or the new one.

    The file is never readable by more than `mode` allows, not even for a moment. `durable`: it outlives a
    crash of the machine, too, at the price of waiting for the disk.

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
