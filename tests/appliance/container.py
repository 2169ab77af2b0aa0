"""This machine's own Debian in namespaces, with systemd as process 1: real speed, and no image to make.

The root folder is an overlay in memory over `/`: nothing below is changed, and all ends with process 1.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.appliance.host import COMMAND_SECONDS, Host, HostError
from tests.lab.waiting import wait_for

BOOT_SECONDS = 60.0
_NAMESPACES: Final = ("--mount", "--net", "--uts", "--ipc", "--cgroup", "--pid")
# What this machine's own system would start is not started: units come from the package, and systemd's own.
_SETUP: Final = """
set -e
umask 022
mount -t tmpfs -o size=1g memory "$1"
cd "$1"
mkdir -p upper/var/lib work root
# dpkg cannot go on where somebody installs a package below.
cp -a /var/lib/dpkg upper/var/lib/
mount -t overlay overlay -o "lowerdir=/,upperdir=upper,workdir=work" root
cd root
mount -t proc proc proc
mount -t tmpfs -o mode=755 devices dev
mkdir dev/net dev/pts dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/net/tun c 10 200
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mount -t sysfs sys sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -o remount,bind,ro sys
cp -r "$2" run/lab
rm -rf etc/systemd/system usr/sbin/policy-rc.d
mkdir -p etc/systemd/system var/log/journal
printf '[Unit]\\nRequires=basic.target\\nAfter=basic.target\\n' > etc/systemd/system/lab.target
for name in systemd-journal-flush systemd-udevd systemd-hwdb-update systemd-binfmt; do
    ln -s /dev/null etc/systemd/system/$name.service
done
hostname appliance
ip link set lo up
mkdir run/below
pivot_root . run/below
umount -l run/below
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --system --unit=lab.target --show-status=false --log-target=journal </dev/null
"""


class Container(Host):
    """`files` are in /run/lab of the system, under their names. It starts at once; use it in `with`."""

    # Triggers, such as that of manual pages, would work on all that this machine has.
    install = "dpkg --no-triggers --force-confold --install"
    remove = "dpkg --no-triggers --remove"
    purge = "dpkg --no-triggers --purge"

    def __init__(self, files: Iterable[Path]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="appliance-")
        place, given = Path(self._folder.name, "root"), Path(self._folder.name, "given")
        place.mkdir()
        given.mkdir(mode=0o755)
        for path in files:
            shutil.copy2(path, given)
        self._log = Path(self._folder.name, "log")
        with self._log.open("wb") as log:
            self._holder = subprocess.Popen(
                (
                    *("unshare", *_NAMESPACES, "--propagation=private", "--fork", "--kill-child=KILL"),
                    *("sh", "-c", _SETUP, "sh", str(place), str(given)),
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(self._is_up, "systemd in its namespaces", BOOT_SECONDS, 0.1)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it at once; what it wrote is gone."""
        self._holder.kill()
        self._holder.wait()
        self._folder.cleanup()

    def call(self, script: str, *, seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
        try:
            done = subprocess.run(
                (
                    "nsenter",
                    f"--target={self._first()}",
                    "--all",
                    "--root",
                    "--wd",
                    "/bin/sh",
                    "-c",
                    f"umask 022\n{script}",
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired as error:
            text = (error.stdout or b"").decode(errors="replace")
            raise HostError(f"{script}\nnot within {seconds:.0f} s\n{text}") from error
        return done.returncode, done.stdout.decode(errors="replace")

    def _is_up(self) -> bool:
        if self._holder.poll() is not None:
            raise HostError(f"systemd ended:\n{self._log.read_text(errors='replace')[-3000:]}")
        return bool(self._children()) and self.call("systemctl is-active --quiet lab.target")[0] == 0

    def _first(self) -> int:
        return self._children()[0]

    def _children(self) -> list[int]:
        text = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        return [int(word) for word in text.split()]
