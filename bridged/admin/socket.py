"""The Unix socket of the admin API: mode 0600 from the first moment, never taken from a live daemon."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Final

from bridged.errors import BridgedError

BACKLOG: Final = 64
PROBE_SECONDS: Final = 2.0


class AdminSocketError(BridgedError):
    """Cannot listen on the API's socket: `in_use`, `not_a_socket`, or `io_error`."""


def open_listener(path: Path) -> tuple[socket.socket, int]:
    """Listen on `path`; return the socket and the path's inode.

    Replaces a stale socket, and makes the folder (0700).

    Raises:
        AdminSocketError: another process listens there, it is not a socket, or the system refused.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        # Two daemons starting at once must not both find the socket stale.
        fcntl.flock(folder, fcntl.LOCK_EX)
        _remove_stale(path)
        return _bind(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        os.close(folder)


def remove_listener(path: Path, inode: int) -> None:
    """Remove the path if it is still the socket with this inode."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()


def _bind(path: Path) -> tuple[socket.socket, int]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode of an unbound socket becomes the mode of its path, so there is no moment of 0755.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener, path.stat().st_ino
    except BaseException:
        listener.close()
        raise


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AdminSocketError(
            "not_a_socket", f"{path} exists and is not a socket; remove it, or set admin.socket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except FileNotFoundError:
            return
        else:
            raise AdminSocketError(
                "in_use",
                f"another bridged listens on {path}; stop it, or set another admin.socket here",
            )


def _refused(path: Path, error: OSError) -> AdminSocketError:
    return AdminSocketError("io_error", f"cannot listen on {path}: {error.strerror or error}")
