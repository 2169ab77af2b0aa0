"""Writes files whole or not at all, and private ones for their owner only.

Linux only (directory fsync). A link in a file's place is never followed or written through. What root makes
in another user's folder belongs to that user: commands run as root, the daemon as `bridged`. In a folder with
the setgid bit, such as /etc/bridged, the folder's group may read private files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from bridged.errors import naming

PRIVATE_FILE: Final = 0o600
PUBLIC_FILE: Final = 0o644
PRIVATE_DIRECTORY: Final = 0o700
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_readers: list[Callable[[Path], int]] = []


def write_atomic(path: Path, content: bytes, mode: int = PRIVATE_FILE, *, durable: bool = True) -> None:
    """Write all of `content` or nothing. Readers see the old file or the new one.

    The file never allows more than `mode`, and its folder's group (see above), not even for a moment.
    `durable`: wait for the disk, so that the file survives a crash of the machine.

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
            os.fchmod(file.fileno(), mode | _group_bit(path.parent))
            give_to_owner_of(path.parent, file.fileno())
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_through(opener: Callable[[Path], int]) -> None:
    """From now on `open_to_read` opens through `opener` what this user may not read."""
    _readers[:] = [opener]


def open_to_read(path: Path) -> BinaryIO:
    """A regular file of the configuration, for reading bytes: a pipe or device would hold up the daemon.

    Raises:
        OSError: it cannot be read, by this user or through `read_through`, or is no regular file.
    """
    try:
        descriptor = os.open(path, _READ)
    except PermissionError:
        if not _readers:
            raise
        descriptor = _readers[0](path)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file, but a pipe or device: name a file", str(path))


FileMark: TypeAlias = tuple[int | bytes, ...]
"""Differs if a file has changed: at once in its first MARKED_OCTETS, behind them within SETTLED_SECONDS."""
MARKED_OCTETS: Final = 1 << 16
SETTLED_SECONDS: Final = 3.0
"""Some file systems keep whole seconds, or even ones: a change within one may alter the text alone."""


def mark_of(stream: BinaryIO) -> FileMark:
    """The mark of an open file, which is read from its start afterwards."""
    state = os.fstat(stream.fileno())
    head = stream.read(MARKED_OCTETS)
    stream.seek(0)
    is_settled = len(head) < MARKED_OCTETS or time.time() - state.st_mtime > SETTLED_SECONDS
    return state.st_mtime_ns, state.st_size, state.st_ino, hashlib.sha256(head).digest(), is_settled


def mark_at(path: Path) -> FileMark | None:
    """The mark of the file there; None: it cannot be read."""
    try:
        with open_to_read(path) as stream:
            return mark_of(stream)
    except (OSError, ValueError):
        return None


def is_readable(path: str) -> bool:
    """Whether `open_to_read` can open a regular file there."""
    # Path.is_file raises in a folder that is closed to us.
    if os.path.isfile(path) and os.access(path, os.R_OK, effective_ids=True):
        return True
    if not _readers:
        return False
    try:
        open_to_read(Path(path)).close()
    except (OSError, ValueError):
        return False
    return True


def why_unreadable(path: Path, error: Exception) -> str:
    """Why `open_to_read` raised `error`, and what to do, for an error about a file that the reader named."""
    if not isinstance(error, PermissionError):
        return getattr(error, "strerror", None) or str(error)
    install = f"`install -g bridged -m 640 {path} /etc/bridged/`"
    return f"{closed_to_user(path)}; copy it: {install}, or use `credential:` (docs/systemd.md)"


def closed_to_user(path: Path) -> str:
    """What keeps this user from reading a file: a folder that is closed to it, or the file's mode."""
    closed = closed_folder(path)
    what = "may not read it" if closed is None else f"may not enter the folder {closed}"
    return f"user {user_name()} {what}"


def closed_folder(path: Path) -> Path | None:
    """The outermost folder above `path` that this user may not enter."""
    above = [one for one in path.absolute().parents if os.access(one, os.F_OK, effective_ids=True)]
    return next((one for one in reversed(above) if not os.access(one, os.X_OK, effective_ids=True)), None)


def unreadable(path: str) -> str | None:
    """What a warning says of a file that `open_to_read` cannot open; None: it can."""
    if is_readable(path):
        return None
    try:
        open_to_read(Path(path)).close()
    except FileNotFoundError:
        return f"no file {path}"
    except (OSError, ValueError) as error:
        return f"{path}: {why_unreadable(Path(path), error)}"
    return None


def user_name() -> str:
    """Who this process is, for error texts and commands."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def make_private_directory(path: Path) -> None:
    """Make `path` (mode 0700) and its missing parents. An existing folder is not changed."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        give_directory(path)


def give_directory(path: Path) -> None:
    """`give_to_owner_of` its parent, for a new directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give_to_owner_of(path.parent, descriptor)
    finally:
        os.close(descriptor)


def give_to_owner_of(folder: Path, descriptor: int) -> None:
    """As root: give an open file of `folder` to the folder's owner and group. Otherwise: nothing."""
    if os.geteuid() == 0 and (owner := folder.stat()).st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def readable_by_folder_group(path: Path) -> bool:
    """Whether the group of this file may read it on purpose: its folder has that group and the setgid bit."""
    folder = path.parent.stat()
    return bool(folder.st_mode & stat.S_ISGID) and folder.st_gid == path.stat().st_gid


def _group_bit(folder: Path) -> int:
    return stat.S_IRGRP if folder.stat().st_mode & stat.S_ISGID else 0


def sync_directory(path: Path) -> None:
    """Make renames in `path` survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FollowedFile:
    """A text file that is read again when it changes. `limit`: bytes that are read at most. Blocking.

    `trouble`: why the last look could not read it, or not whole; None: it could, or there is no file.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._mark: FileMark = ()
        self.trouble: OSError | None = None

    def changed(self) -> str | None:
        """The text, "" if there is no file; None: it has not changed, or cannot be read now."""
        self.trouble = None
        try:
            with open_to_read(self._path) as stream:
                mark = mark_of(stream)
                if mark == self._mark:
                    return None
                if os.fstat(stream.fileno()).st_size > self._limit:
                    raise OSError(errno.EFBIG, f"larger than {self._limit} bytes", str(self._path))
                octets = stream.read(self._limit)
        except FileNotFoundError:
            self._mark = ()
            return ""
        except OSError as error:
            self.trouble = error
            return None
        self._mark = mark
        return octets.decode("utf-8", "replace")
