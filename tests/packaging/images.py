"""What the tests of container images share: a base that mmdebstrap makes, and the folder to build in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.packaging.conftest import ROOT, Package

SECONDS: Final = 600
PREPARE: Final = """
set -e
# An engine knows one hierarchy of control groups.
umount -R -l /sys/fs/cgroup || true
mount -t cgroup2 cgroup /sys/fs/cgroup
# A device with the mode that udev gives it.
mount -t tmpfs -o mode=755 devices /dev/net
mknod -m 666 /dev/net/tun c 10 200
ip link set lo up
ip link add eth1 type veth peer name eth1-x
ip link set eth1 up
ip link set eth1-x up
"""
"""For sh, in mount and network namespaces of its own: a host with a LAN port, eth1."""


class Host:
    """A network and mounts of its own, until `close`. `prepare`: more for sh; its `$1` is `folder`."""

    def __init__(self, folder: Path, prepare: str = "") -> None:
        self.folder = folder
        script = f"{PREPARE}{prepare}\necho ready\nexec cat"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "--net", "sh", "-c", script, "sh", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()

    def enter(self, *command: str, online: Path | None = None) -> tuple[str, ...]:
        """`online`: in this folder, with this machine's own network."""
        where = ("--net", f"--wd={ROOT}") if online is None else (f"--wd={online}",)
        return ("nsenter", "-t", str(self._holder.pid), "--mount", *where, *command)

    def inside(self, *command: str, check: bool = True, online: Path | None = None) -> str:
        done = subprocess.run(
            self.enter(*command, online=online),
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout if "logs" not in command else done.stdout + done.stderr

    def ports(self) -> set[str]:
        """The ports of br0."""
        links = self.inside("ip", "-brief", "link", "show", "master", "br0")
        return {line.split()[0].partition("@")[0] for line in links.splitlines()}


def base() -> Path:
    """A Debian 12, as tar; made once."""
    made = ROOT / "build/chroots/bookworm.tar"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        new = made.with_suffix(".new")
        command = ("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", "bookworm", str(new))
        subprocess.run(command, check=True, timeout=SECONDS)
        new.rename(made)
    return made


def context(folder: Path, package: Package) -> Path:
    """What the project's folder has after `make deb`, as far as the container file needs it."""
    made = folder / "context"
    (made / "dist").mkdir(parents=True)
    shutil.copy2(package.file, made / "dist")
    shutil.copytree(ROOT / "deploy/container", made / "deploy/container")
    return made
