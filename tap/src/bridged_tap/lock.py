"""The adapter lock: at most one process for each adapter of a network namespace.

The lock is a listening Unix socket bound to the abstract name `bridged/tap/<adapter>`, because

- abstract names belong to a network namespace, as adapters do. A lock file under /run would keep apart what
  shares a namespace, and join what does not;
- the kernel frees the name with the last descriptor: a killed holder leaves nothing behind, and no directory
  has to be writable;
- SO_PEERCRED on a connection names the holder's PID and user.

Any local user may bind an abstract name. A name held by a user without any right to the adapter therefore
does not count.

Programs that do not know this lock (OpenVPN, QEMU) are found by `iff:` in /proc/<pid>/fdinfo. The kernel
itself refuses a second holder (EBUSY) on single-queue adapters only.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from bridged_tap.errors import AdapterLockedError, TapError

_PREFIX: Final = "bridged/tap/"
_BACKLOG: Final = 128
_COMMAND_CHARACTERS: Final = 160
_OVERFLOW_UID: Final = 65534
_CREDENTIALS: Final = struct.Struct("=iII")
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has an adapter. What cannot be seen from here (another PID namespace) is None."""

    pid: int | None
    command: str | None
    uid: int | None


class AdapterLock:
    """The lock of one adapter, made by `lock_adapter`. Use it in a `with` block, or `release` it."""

    def __init__(self, adapter: str, lock: socket.socket | None) -> None:
        self.adapter = adapter
        self._socket = lock

    @property
    def is_effective(self) -> bool:
        """The lock is held. False when a user without any right to the adapter occupies its name."""
        return self._socket is not None

    def release(self) -> None:
        """Let others have the adapter. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_adapter(
    adapter: str, *, owner: int | None = None, anyone: bool = False, prefix: str = _PREFIX
) -> AdapterLock:
    """Take the lock of `adapter` in the network namespace of the calling thread, without waiting.

    `open_tap` and `open_tun` do this; it is for programs that open the adapter otherwise. Locks of root and
    of this user count, and those of `owner`, the user id that owns the adapter; `anyone`: of every user,
    because the adapter has a group. With another `prefix` it is a lock for something else than adapters.

    Raises:
        AdapterLockedError: somebody holds it; names PID and command where they can be seen.
        TapError: code `tap_lock`; the system forbids abstract sockets (a security profile).
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind("\0" + prefix + adapter)
        lock.listen(_BACKLOG)
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise TapError(
                "tap_lock",
                f"adapter {adapter} cannot be locked ({error}); open it without a lock",
                error.errno,
            ) from error
    else:
        return AdapterLock(adapter, lock)
    holder = find_lock_holder(adapter, prefix) or Holder(None, None, None)
    if anyone or holder.uid is None or holder.uid in _trusted_users(owner):
        raise AdapterLockedError(adapter, holder.pid, holder.command)
    return AdapterLock(adapter, None)


def find_lock_holder(adapter: str, prefix: str = _PREFIX) -> Holder | None:
    """The process that holds the lock of `adapter`, or the one with that `prefix`; None: nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect("\0" + prefix + adapter)
        except OSError:
            # Nobody there, or the holder's backlog is full, or it has not come to listen() yet.
            return _find_socket_holder(prefix + adapter)
        pid, uid, _ = _CREDENTIALS.unpack(
            probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
    if pid and (_PROC / str(pid)).exists():
        return Holder(pid, read_command(pid), uid)
    # It forked after locking and the parent is gone, or it lives in another PID namespace.
    return _find_socket_holder(prefix + adapter) or Holder(None, None, uid)


def find_attached(adapter: str) -> Holder | None:
    """A process, other than ours, that has the TAP `adapter` of this network namespace attached."""
    namespace = _namespace_of(Path("thread-self"))
    line = f"iff:\t{adapter}"
    for pid in _list_pids():
        if pid == os.getpid():
            continue
        for descriptor in _list_descriptors(pid):
            with suppress(OSError):
                if not os.readlink(descriptor).endswith("net/tun"):
                    continue
                information = (_PROC / str(pid) / "fdinfo" / descriptor.name).read_text(errors="replace")
                if line in information.splitlines() and namespace in _namespaces_of(pid):
                    return Holder(pid, read_command(pid), _uid_of(pid))
    return None


def find_holder(adapter: str) -> Holder | None:
    """Who has the adapter: holds its lock (this process included) or has it attached. None: nobody."""
    return find_lock_holder(adapter) or find_attached(adapter)


def read_command(pid: int) -> str | None:
    """The command line of a process, printable and cut to 160 characters; None when it is gone."""
    with suppress(OSError):
        words = (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        text = b" ".join(words) or (_PROC / str(pid) / "comm").read_bytes().strip()
        shown = "".join(c if c.isprintable() else "?" for c in text.decode(errors="replace"))
        return shown if len(shown) <= _COMMAND_CHARACTERS else shown[: _COMMAND_CHARACTERS - 1] + "…"
    return None


def _trusted_users(owner: int | None) -> set[int]:
    trusted = {0, os.geteuid()}
    if owner is not None:
        trusted.add(owner)
    with suppress(OSError):
        # Inside a user namespace the host's root shows as the overflow user.
        if (_PROC / "self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            trusted.add(_OVERFLOW_UID)
    return trusted


def _find_socket_holder(name: str) -> Holder | None:
    inode = None
    with suppress(OSError):
        for line in (_PROC / "thread-self/net/unix").read_text(errors="replace").splitlines():
            fields = line.split(maxsplit=7)
            # Connections waiting in the holder's backlog carry the same name, and inode 0.
            if len(fields) == 8 and fields[7] == "@" + name and fields[6] != "0":
                inode = fields[6]
    if inode is None:
        return None
    for pid in _list_pids():
        for descriptor in _list_descriptors(pid):
            with suppress(OSError):
                if os.readlink(descriptor) == f"socket:[{inode}]":
                    return Holder(pid, read_command(pid), _uid_of(pid))
    return Holder(None, None, None)


def _list_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())


def _list_descriptors(pid: int) -> list[Path]:
    with suppress(OSError):
        return list((_PROC / str(pid) / "fd").iterdir())
    return []


def _namespace_of(process: Path) -> int | None:
    with suppress(OSError):
        return (_PROC / process / "ns/net").stat().st_ino
    return None


def _namespaces_of(pid: int) -> set[int | None]:
    """Network namespaces of all its threads: a descriptor does not tell which of them opened it."""
    with suppress(OSError):
        return {
            _namespace_of(Path(str(pid)) / "task" / task) for task in os.listdir(_PROC / str(pid) / "task")
        }
    return set()


def _uid_of(pid: int) -> int | None:
    # Not the owner of /proc/<pid>: that is root for any process that made itself undumpable.
    with suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[2])
    return None
