"""Gives up what a daemon that was started as root does not need: the user, and all but a few capabilities.

Source: capabilities(7), prctl(2), capset(2); docs/decisions/0066.
Before the event loop and any thread: capabilities belong to threads.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import stat
import struct
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from bridged.configuration.schema import Configuration
from bridged.errors import ConfigurationError, naming
from bridged.files import read_through
from bridged.runtime.service.reader import start_reader

DEFAULT_USER: Final = "bridged"
NET_BIND_SERVICE: Final = 10
NET_ADMIN: Final = 12
NET_RAW: Final = 13
KEPT: Final = (NET_BIND_SERVICE, NET_ADMIN, NET_RAW)
"""Ports below 1024; adapters, bridges, addresses and sysctls of the network; packet sockets."""
DAC_READ_SEARCH: Final = 2
TO_CHANGE_USER: Final = {"chown": 0, "dac_read_search": 2, "setgid": 6, "setuid": 7, "setpcap": 8}
"""What giving up root takes, and the reader. Containers leave root without some of them."""

_TUN: Final = "/dev/net/tun"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FIRST_PERSON: Final = 1000
"""Users with smaller numbers are services (Debian policy 9.2.2)."""
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITIES_MAX: Final = 64
_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def protect_memory() -> None:
    """Keep keys out of core dumps, and other processes of this user out of our memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def settle_privileges(configuration: Configuration, path: Path) -> None:
    """As root: become the configured user, with KEPT alone. Files that only root may read stay readable.

    What the daemon owns (state folder, folder of the admin socket) becomes that user's.

    Raises:
        ConfigurationError: there is no such user.
        OSError: the system refused.
    """
    log = structlog.get_logger("bridged.service")
    if os.geteuid() != 0:
        return
    user = find_user(configuration.user)
    if user is None:
        advice = "make the user `bridged` (`adduser --system --group bridged`), or set `user`"
        log.info("runs_as_root", detail="" if configuration.user == "root" else advice)
        return
    missing = [name for name, number in TO_CHANGE_USER.items() if number not in _permitted()]
    if missing:
        text = f"root may not become {user.pw_name} here, without {', '.join(missing)}: set `user: root`"
        if configuration.user is not None:
            raise ConfigurationError(text, key="user")
        log.info("runs_as_root", detail="as this container's root, with the rights that it leaves")
        return
    if not _may_use_adapters(user):
        text = f"{user.pw_name} may not open {_TUN}: `chmod 666 {_TUN}`, as udev does, or set `user: root`"
        if configuration.user is not None:
            raise ConfigurationError(text, key="user")
        log.warning("runs_as_root", detail=text)
        return
    foreign = find_foreign(user, configuration.state_directory, configuration.admin.socket.parent)
    if foreign is not None:
        text = f"{foreign} has more than this daemon's files, and cannot be given to {user.pw_name}: name "
        text += "folders of the daemon's own in state_directory and admin.socket, or set `user: root`"
        if configuration.user is not None:
            raise ConfigurationError(text, key="user")
        log.warning("runs_as_root", detail=text)
        return
    hand_folders_to(user, configuration.state_directory, configuration.admin.socket.parent)
    read_through(start_reader(path, partial(become, user, (DAC_READ_SEARCH,))))
    become(user, KEPT)
    if not os.access(path.absolute().parent, os.R_OK | os.X_OK):
        advice = f"chgrp {user.pw_name} {path.absolute().parent} && chmod 750 {path.absolute().parent}"
        log.warning("configuration_folder_closed", detail="a reload will be rejected", advice=advice)
    log.info("privileges_dropped", user=user.pw_name, kept=["net_admin", "net_bind_service", "net_raw"])


def _permitted() -> frozenset[int]:
    """The capabilities that this thread may use."""
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as lines:
        mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))
    return frozenset(number for number in range(_CAPABILITIES_MAX) if mask >> number & 1)


def _may_use_adapters(user: pwd.struct_passwd) -> bool:
    try:
        found = os.stat(_TUN)
    except OSError:
        return True  # without it nothing works; opening an adapter says why
    both = stat.S_IROTH | stat.S_IWOTH
    if found.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
        both = stat.S_IRGRP | stat.S_IWGRP
    return found.st_mode & both == both


def find_user(name: str | None) -> pwd.struct_passwd | None:
    """Whom to become; None: nobody, stay root.

    Raises:
        ConfigurationError: the configured user does not exist.
    """
    try:
        user = pwd.getpwnam(name or DEFAULT_USER)
    except KeyError:
        if name is None:
            return None
        raise ConfigurationError(f"there is no user {name} on this host", key="user") from None
    return user if user.pw_uid != 0 else None


def become(user: pwd.struct_passwd, capabilities: Iterable[int]) -> None:
    """Be `user` for good, with these capabilities and no others.

    Raises:
        OSError: the system refused.
    """
    kept = frozenset(capabilities)
    for number in range(_CAPABILITIES_MAX):
        if number not in kept and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # this kernel has no more
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _VERSION_3, 0)
    sets = struct.pack("=6I", low, low, 0, high, high, 0)
    if _libc.capset(header, sets) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    protect_memory()


def find_foreign(user: pwd.struct_passwd, state: Path, sockets: Path) -> Path | None:
    """A folder that `hand_folders_to` would give away though it is not the daemon's; None: there is none.

    Nobody's home is, nor a folder for sockets that has other files, such as /root/.config.
    """
    people = [one.pw_dir for one in pwd.getpwall() if one.pw_uid == 0 or one.pw_uid >= _FIRST_PERSON]
    homes = {os.path.realpath(home) for home in people if home != user.pw_dir}
    for folder in {state, sockets}:
        if not folder.is_dir() or folder.stat().st_uid == user.pw_uid or _is_shared(folder):
            continue
        is_home = os.path.realpath(folder) in homes
        if is_home or (folder != state and not all(one.is_socket() for one in folder.iterdir())):
            return folder
    return None


def _is_shared(folder: Path) -> bool:
    return stat.S_IMODE(folder.stat().st_mode) & 0o077 != 0


def hand_folders_to(user: pwd.struct_passwd, *folders: Path) -> None:
    """Make folders that the daemon made as root, and their content, the user's. Shared ones stay root's.

    Raises:
        OSError: the system refused; `filename` is the folder.
    """
    for folder in folders:
        with naming(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_shared(folder):
                _hand_over_tree(user, folder)


def _hand_over_tree(user: pwd.struct_passwd, folder: Path) -> None:
    for _, _, names, descriptor in os.fwalk(folder, follow_symlinks=False):
        os.chown(descriptor, user.pw_uid, user.pw_gid)
        for name in names:
            if not stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                continue
            file = os.open(name, _READ, dir_fd=descriptor)
            try:
                found = os.fstat(file)
                # Another name of the same file may be anywhere, so it is not ours to give.
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                    os.fchown(file, user.pw_uid, user.pw_gid)
            finally:
                os.close(file)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
