"""The state folder: made at the start, and what to do where this user may not use it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from bridged.errors import ConfigurationError
from bridged.files import closed_folder, user_name

_FAULTS: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
"""They stay until somebody changes the host or the configuration; a full disk may pass."""


def make_state_folder(folder: Path) -> Path:
    """`folder`, created (0700) if needed.

    Raises:
        ConfigurationError: this user may not make it or enter it; the text has the cure.
        OSError: another failure.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Where nothing can be written, what is there may still do: no reason to leave the LANs apart.
        if not os.access(folder, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        raise ConfigurationError(f"{folder}: {_reason(folder, error)}", key="state_directory") from error
    return folder


def _reason(folder: Path, error: OSError) -> str:
    another = "name a folder below /var/lib/bridged"
    if error.errno == errno.EROFS:
        return (
            f"the file system is read-only for this service: {another}, or add `ReadWritePaths={folder}` "
            "to the unit (`systemctl edit`) and make the folder"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"a file is in the place of a folder: {another}, or move the file away"
    user = user_name()
    closed = closed_folder(folder)
    if closed is not None:
        return f"user {user} may not enter {closed}: {another}, or run `chmod o+x {closed}`"
    if not os.access(folder, os.F_OK):
        above = next(one for one in folder.absolute().parents if os.access(one, os.F_OK))
        return (
            f"user {user} may not make it in {above}: {another}, or run "
            f"`install -d -m 700 -o {user} {folder}`"
        )
    return f"user {user} may not enter it: {another}, or run `chown -R {user} {folder}`"
