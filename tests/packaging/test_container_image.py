"""The image of deploy/container/Containerfile: built and run with podman, by the commands in its head.

Nothing is pulled: the base is a Debian that mmdebstrap made. It runs in namespaces of the test's own.
"""

from __future__ import annotations

import re
import resource
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lab import wait_for
from tests.packaging.conftest import ROOT, Package

pytestmark = pytest.mark.root

SECONDS: Final = 600
_SETUP: Final = """
set -e
# The engine knows one hierarchy of control groups.
umount -R -l /sys/fs/cgroup || true
mount -t cgroup2 cgroup /sys/fs/cgroup
# A device with the mode that udev gives it.
mount -t tmpfs -o mode=755 devices /dev/net
mknod -m 666 /dev/net/tun c 10 200
ip link set lo up
ip link add eth1 type veth peer name eth1-x
ip link set eth1 up
ip link set eth1-x up
echo ready
exec cat
"""


class Engine:
    """podman with a store of its own, in namespaces of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "--net", "sh", "-c", _SETUP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def close(self) -> None:
        self("rm", "--force", "--all", check=False)
        self._holder.kill()
        self._holder.wait()
        shutil.rmtree(self._folder / "store", ignore_errors=True)

    def inside(self, *command: str, check: bool = True, online: Path | None = None) -> str:
        """`online`: in this folder, with this machine's own network."""
        where = ("--net", f"--wd={ROOT}") if online is None else (f"--wd={online}",)
        enter = ("nsenter", "-t", str(self._holder.pid), "--mount", *where)
        done = subprocess.run(
            (*enter, *command), capture_output=True, encoding="utf-8", timeout=SECONDS, check=False
        )
        assert done.returncode == 0 or not check, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout if "logs" not in command else done.stdout + done.stderr

    def __call__(self, *arguments: str, check: bool = True, online: Path | None = None) -> str:
        places = ("--root", str(self._folder / "store"), "--runroot", str(self._folder / "run"))
        plain = ("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file")
        return self.inside("podman", *places, *plain, *arguments, check=check, online=online)


def documented(verb: str) -> list[str]:
    """The words of a command in the file's head, behind `podman VERB`."""
    text = (ROOT / "deploy/container/Containerfile").read_text(encoding="utf-8")
    head = re.sub(r"^#", "", text.partition("\nARG ")[0], flags=re.MULTILINE).replace("\\\n", " ")
    (command,) = re.findall(rf"^ +podman {verb} (.*)$", head, re.MULTILINE)
    return shlex.split(command)


@pytest.fixture(scope="module")
def engine(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("podman")
    base = ROOT / "build/chroots/bookworm.tar"
    if not base.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        new = base.with_suffix(".new")
        command = ("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", "bookworm", str(new))
        subprocess.run(command, check=True, timeout=SECONDS)
        new.rename(base)
    context = folder / "context"
    (context / "dist").mkdir(parents=True)
    shutil.copy2(package.file, context / "dist")
    shutil.copytree(ROOT / "deploy/container", context / "deploy/container")
    engine = Engine(folder)
    try:
        engine("import", str(base), "localhost/debian:12")
        build = documented("build")
        assert build[-1] == "."
        here = ("--isolation", "chroot", "--network", "host", "--build-arg", "BASE=localhost/debian:12")
        engine("build", *here, *build[:-1], str(context), online=context)
        yield engine
    finally:
        engine.close()


def test_the_image_runs_by_the_documented_command_reloads_and_gives_the_host_back(
    engine: Engine, tmp_path: Path
) -> None:
    configuration = tmp_path / "etc"
    (configuration / "conf.d").mkdir(parents=True)
    run = documented("run")
    run = [word.replace("/etc/bridged:", f"{configuration}:") for word in run]
    # This machine may raise no limits and give no control groups.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = ("--cgroups=disabled", "--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=4096:4096")
    make = (
        "bridged",
        "init",
        "--state",
        "/var/lib/bridged",
        "--remote",
        "vpn.example.net",
        "--bridge",
        "br0",
    )
    once = [word for word in run if word not in {"--detach", "--name", "bridged"}]
    engine("run", "--rm", *limits, *once, *make, "--port", "eth1", "--output", "/etc/bridged/bridged.yaml")
    engine("run", *limits, *run)
    try:
        wait_for(
            lambda: "tunnel server" in engine("exec", "bridged", "bridged", "status", check=False), "it", 60
        )
        links = engine.inside("ip", "-brief", "link", "show", "master", "br0")
        assert {line.split()[0].partition("@")[0] for line in links.splitlines()} == {"eth1", "tap-server"}
        assert engine("exec", "bridged", "bridged", "reload") == "applied\n"
        engine("healthcheck", "run", "bridged")
        said = engine("logs", "bridged")
        assert "native" in said and '"level": "error"' not in said
    finally:
        engine("stop", "--time", "30", "bridged", check=False)
    assert engine("inspect", "bridged", "--format", "{{.State.ExitCode}}").strip() == "0"
    assert "br0" not in engine.inside("ip", "-brief", "link")
