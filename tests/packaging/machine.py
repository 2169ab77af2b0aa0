"""A Debian system to install into: an overlay over a root folder, in namespaces of its own.

Nothing below is changed; all changes are in memory, and end with the process that holds the namespaces.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.processes import run

SECONDS: Final = 120
_SETUP: Final = """
set -e
umask 022
mount -t tmpfs -o size=1g memory "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount --rbind /proc "$2/root/proc"
mount -t tmpfs -o mode=755 devices "$2/root/dev"
mkdir "$2/root/dev/net"
# With udev's modes: this machine may have no udev.
mknod -m 666 "$2/root/dev/null" c 1 3
mknod -m 666 "$2/root/dev/zero" c 1 5
mknod -m 666 "$2/root/dev/random" c 1 8
mknod -m 666 "$2/root/dev/urandom" c 1 9
mknod -m 666 "$2/root/dev/net/tun" c 10 200
mount -t sysfs sys "$2/root/sys"
mount -t tmpfs run "$2/root/run"
mount -t tmpfs tmp "$2/root/tmp"
ip link set lo up
echo ready
exec cat
"""


class Machine:
    """A context manager. `below` is the root folder, `place` an empty folder for the mounts."""

    def __init__(self, below: Path, place: Path) -> None:
        self._place = place
        command = ("sh", "-c", _SETUP, "sh", str(below), str(place))
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "--net", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "the overlay could not be made"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(SECONDS)

    def inside(self, *argv: str) -> tuple[str, ...]:
        """The command that runs `argv` as root in this system."""
        enter = ("nsenter", "-t", str(self._holder.pid), "--mount", "--net")
        clean = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8")
        return (*enter, "chroot", str(self._place / "root"), *clean, *argv)

    def run(self, *argv: str, check: bool = True) -> str:
        """Standard output of a command in this system.

        Raises:
            CommandError: it failed, with what it wrote.
        """
        return run(*self.inside(*argv), check=check, seconds=SECONDS)

    def put(self, source: Path, destination: str) -> None:
        """Copy a file of this machine into the system."""
        with source.open("rb") as file:
            subprocess.run(self.inside("sh", "-c", f"cat > {destination}"), stdin=file, check=True)

    def write(self, destination: str, text: str) -> None:
        subprocess.run(self.inside("sh", "-c", f"cat > {destination}"), input=text.encode(), check=True)

    def changes(self) -> set[str]:
        """Files and folders that differ from the system below, as paths from the root."""
        upper = str(self._place / "upper")
        enter = ("nsenter", "-t", str(self._holder.pid), "--mount")
        found = run(*enter, "find", upper, "-mindepth", "1", "-printf", "/%P\n")
        return set(found.splitlines())

    @property
    def pid(self) -> int:
        return self._holder.pid
