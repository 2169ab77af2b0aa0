"""The container file's image under the real Docker engine, by the commands of docs/guides/docker.md.

Nothing is pulled: the base is a Debian that mmdebstrap made. The engine is the test's own, and ends with it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.lab import wait_for
from tests.packaging.conftest import Package
from tests.packaging.images import SECONDS, Host, base, context
from tests.unit.documents.guides import GUIDES, guide

pytestmark = pytest.mark.root

# The guide's /etc/bridged and /var/lib/bridged are this host's own, and so is what the engine writes.
_PREPARE: Final = """
cd "$1"
mkdir private
mount -t tmpfs private private
cp -L /etc/resolv.conf private/resolv.conf
for name in etc var/lib; do
    mkdir -p private/upper/$name private/work/$name
    mount -t overlay overlay -o lowerdir=/$name,upperdir=private/upper/$name,workdir=private/work/$name /$name
    rm -rf /$name/bridged
    mkdir /$name/bridged
done
rm -f /etc/resolv.conf
cp private/resolv.conf /etc/resolv.conf
rm -rf /etc/docker
mount -t tmpfs run /run
"""
GROUP: Final = f"/bridged-docker-{os.getpid()}"


class Docker(Host):
    """A host with an engine, whose images and containers are in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, _PREPARE)
        self._socket = f"unix://{folder}/socket"

    def close(self) -> None:
        self.inside(
            "sh", "-c", f"cd /sys/fs/cgroup && [ ! -d .{GROUP} ] || find .{GROUP} -depth -type d -delete"
        )
        super().close()
        shutil.rmtree(self.folder)

    @contextmanager
    def engine(self, *, online: Path | None = None) -> Iterator[None]:
        """The engine, until its end; nothing that it started outlives its process namespace."""
        places = [f"--{name}={self.folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        plain = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
        groups = ("--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent={GROUP}")
        # Docker reaps no orphans, and waits for them.
        own = ("unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "tini", "--")
        command = (*own, "dockerd", f"--host={self._socket}", *places, *plain, *groups)
        log = self.folder / "log"
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                self.enter(*command, online=online),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

        def is_up() -> bool:
            assert daemon.poll() is None, log.read_text(errors="replace")[-3000:]
            return "Server Version" in self("info", check=False)

        try:
            wait_for(is_up, "the engine", 60, 0.2)
            yield
            children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text()
            os.kill(int(children), signal.SIGTERM)
            daemon.wait(SECONDS)
        finally:
            daemon.kill()
            daemon.wait()

    def follow(self, command: str, *, check: bool = True, online: Path | None = None) -> str:
        """A command line of the guide, in a shell of this host, with Debian's client."""
        assert command.startswith("docker "), command
        client = f"DOCKER_CONFIG={self.folder} DOCKER_HOST={self._socket} /usr/bin/"
        return self.inside("sh", "-c", f"{client}{command} 2>&1", check=check, online=online)

    def __call__(self, *arguments: str, check: bool = True) -> str:
        return self.follow(" ".join(("docker", *arguments)), check=check)


@pytest.fixture(scope="module")
def commands() -> dict[str, str]:
    """By Docker's verb, or that of bridged."""
    found = [command for block in guide("docker") for command in block.commands]
    text = (GUIDES / "docker.md").read_text(encoding="utf-8")
    found += re.findall(r"`(docker (?:kill|stop) [^`]+)`", text)
    assert len(found) == 7
    verb = re.compile(r"docker (?:(?:exec bridged|run --rm .*) bridged +)?(\w+)")
    return {verb.findall(command)[0]: command for command in found}


@pytest.fixture(scope="module")
def docker(
    package: Package, tmp_path_factory: pytest.TempPathFactory, commands: dict[str, str]
) -> Iterator[Docker]:
    assert Path("/usr/bin/docker").exists(), "run `make test-container`; Debian 13 has it in docker-cli"
    folder = tmp_path_factory.mktemp("docker")
    host = Docker(folder)
    try:
        place = context(folder, package)
        # Packages come over this machine's network, which an engine without a bridge changes in nothing.
        with host.engine(online=place):
            host("import", str(base()), "debian:12-slim")
            host.follow(commands["build"].replace("build", "build --network host", 1), online=place)
        with host.engine():
            yield host
    finally:
        host.close()


def test_the_guide_makes_a_bridge_that_is_reloaded_survives_a_crash_and_is_given_back(
    docker: Docker, commands: dict[str, str]
) -> None:
    docker.follow(commands["init"])
    docker.follow(commands["run"])

    def is_up() -> bool:
        return "tunnel server" in docker.follow(commands["status"], check=False)

    wait_for(is_up, "the daemon", 60)
    assert docker.ports() == {"eth1", "tap-server"}

    change(docker, "br1")
    assert docker.follow(commands["reload"]) == "applied\n"
    assert "br1" in docker.inside("ip", "-brief", "link")

    docker("exec", "bridged", "sh", "-c", "'kill -KILL $(cat /proc/1/task/1/children)'")
    wait_for(
        lambda: docker("inspect", "--format", "{{.RestartCount}}", "bridged") == "1\n", "the restart", 30
    )
    wait_for(is_up, "the daemon after its crash", 60)
    assert docker.ports() == {"eth1", "tap-server"}
    health = ("inspect", "--format", "{{.State.Health.Status}}", "bridged")
    wait_for(lambda: docker(*health) == "healthy\n", "Docker finds it healthy", 60, 1)
    said = docker("logs", "bridged")
    assert "native" in said and '"level": "error"' not in said

    change(docker, "br2")
    docker.follow(commands["kill"])
    wait_for(lambda: "br2" in docker.inside("ip", "-brief", "link"), "the reload by a signal", 30)

    docker.follow(commands["stop"])
    assert docker("inspect", "--format", "{{.State.ExitCode}}", "bridged") == "0\n"
    links = docker.inside("ip", "-brief", "link")
    assert "br0" not in links and "br2" not in links and "tap-server" not in links


def change(docker: Docker, bridge: str) -> None:
    """Configure this bridge too, and no other."""
    folder = "/etc/bridged/conf.d"
    docker.inside("sh", "-c", f"mkdir -p {folder}; echo 'bridges: {{{bridge}: {{}}}}' > {folder}/more.yaml")
