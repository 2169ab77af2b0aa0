"""A child process that opens files for a daemon that gave up root: reloads need keys that only root may read.

Source: docs/decisions/0066. It can read any file, and nothing else. It opens only the configuration, its
drop-ins, and regular files whose path is written in them, or in the metrics' web configuration that they
name: what root wrote there, root wants read.
Where others than root may write, a link could lead from such a path to any file: no link is followed there.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import threading
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Final, NoReturn

from bridged.configuration.drop_ins import find_drop_ins
from bridged.errors import ConfigurationErrors

PATH_OCTETS_MAX: Final = 4096
TEXT_OCTETS_MAX: Final = 4 << 20
DESCRIPTORS_MAX: Final = 65_536
ANSWER_SECONDS: Final = 5.0
ANSWER_OCTETS_MAX: Final = 32
LINKS_MAX: Final = 40
WEB_CONFIGURATIONS_MAX: Final = 10
_WEB_CONFIGURATION: Final = re.compile(rb"""web_config_file["']?\s*:\s*["']?([^"'\s,}#]+)""")
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def start_reader(configuration: Path, give_up: Callable[[], None]) -> Callable[[Path], int]:
    """Fork the child, and return what opens a file through it: a descriptor, or PermissionError.

    `give_up` is called in the child and leaves it the right to read. It ends with this process.

    Raises:
        OSError: the system has no process to spare.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    configuration = configuration.absolute()
    pid = os.fork()
    if pid == 0:
        _be_reader(theirs, configuration, give_up)
    theirs.close()
    ours.settimeout(ANSWER_SECONDS)

    questions, turn = count(), threading.Lock()

    def open_through(path: Path) -> int:
        with turn:
            mark = b"%d" % next(questions)
            ours.send(mark + b" " + os.fsencode(path.absolute()))
            while True:
                answer, descriptors, _, _ = socket.recv_fds(ours, ANSWER_OCTETS_MAX, 1)
                answered, _, number = answer.partition(b" ")
                if answered == mark or not answer:
                    break
                # To a question whose time was over.
                for descriptor in descriptors:
                    os.close(descriptor)
        if descriptors:
            os.set_inheritable(descriptors[0], False)
            return descriptors[0]
        code = int(number or errno.EACCES)
        raise OSError(code, os.strerror(code), str(path))

    return open_through


def _be_reader(asked: socket.socket, configuration: Path, give_up: Callable[[], None]) -> NoReturn:
    """Answer until the daemon is gone."""
    status = 1
    try:
        mine = asked.fileno()
        os.closerange(3, mine)
        os.closerange(mine + 1, DESCRIPTORS_MAX)
        os.setsid()
        give_up()
        while question := asked.recv(ANSWER_OCTETS_MAX + PATH_OCTETS_MAX):
            mark, _, path = question.partition(b" ")
            try:
                descriptor = _open_allowed(Path(os.fsdecode(path)), configuration)
            except (OSError, ValueError, ConfigurationErrors) as error:
                asked.send(mark + b" %d" % (getattr(error, "errno", None) or errno.EACCES))
                continue
            socket.send_fds(asked, [mark + b" 0"], [descriptor])
            os.close(descriptor)
        status = 0
    finally:
        os._exit(status)


def _open_allowed(path: Path, configuration: Path) -> int:
    files = [file for file in (configuration, *find_drop_ins(configuration)) if _is_roots(file.parent)]
    if path not in files and not any(_names(file, path) for file in files):
        # The metrics' web configuration names files, too.
        pages = {page for file in files for page in _web_configurations(file) if _is_roots(page.parent)}
        if not any(_names(page, path) for page in pages):
            raise PermissionError(errno.EACCES, "the configuration does not name it")
    return _open_regular(path)


def _names(file: Path, path: Path) -> bool:
    """Whether the text of this file has the path, absolute or relative to its folder."""
    text = _text_of_root(file)
    written = [str(path)]
    if path.is_relative_to(file.parent):
        written.append(str(path.relative_to(file.parent)))
    return any(os.fsencode(one) in text for one in written)


def _web_configurations(file: Path) -> list[Path]:
    names = islice(_WEB_CONFIGURATION.findall(_text_of_root(file)), WEB_CONFIGURATIONS_MAX)
    return [file.parent / os.fsdecode(name) for name in names]


def _text_of_root(file: Path) -> bytes:
    """What root wrote there; nothing if others may write the file, too, or it cannot be read."""
    try:
        descriptor = _open_regular(file)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if found.st_uid != 0 or found.st_mode & 0o022:
            return b""
        return stream.read(TEXT_OCTETS_MAX)


def _is_roots(folder: Path) -> bool:
    """Whether only root decides what is in this folder: what it names is no trick of the daemon's user."""
    return _only_root_writes(folder.stat())


def _only_root_writes(found: os.stat_result) -> bool:
    return found.st_uid == 0 and not found.st_mode & 0o022


def _open_regular(path: Path) -> int:
    """Step by step, so that nobody can put a link in place of a folder meanwhile."""
    folder, links = os.open("/", _FOLDER), 0
    rest = list(reversed(path.parts[1:]))
    try:
        while rest:
            name = rest.pop()
            is_roots = _only_root_writes(os.fstat(folder))
            target = _link_target(name, folder) if is_roots else None
            if target is not None:
                links += 1
                if links > LINKS_MAX:
                    raise OSError(errno.ELOOP, "too many links")
                if target.is_absolute():
                    os.close(folder)
                    folder = os.open("/", _FOLDER)
                rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            elif rest:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            else:
                return _open_last(name, folder, is_roots)
    finally:
        os.close(folder)
    raise PermissionError(errno.EACCES, "not a regular file")


def _open_last(name: str, folder: int, is_roots: bool) -> int:
    descriptor = os.open(name, _READ, dir_fd=folder)
    found = os.fstat(descriptor)
    # A second name of a file is a link, too.
    if stat.S_ISREG(found.st_mode) and (is_roots or found.st_nlink == 1):
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EACCES, "not a regular file, or a link that others than root may have made")


def _link_target(name: str, folder: int) -> Path | None:
    """Where a symbolic link leads; None: it is none, or nothing is there."""
    try:
        return Path(os.readlink(name, dir_fd=folder))
    except OSError:
        return None
