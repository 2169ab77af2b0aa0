"""The image of deploy/container/Containerfile: built and run with podman, by the commands in its head.

Nothing is pulled: the base is a Debian that mmdebstrap made. It runs in namespaces of the test's own.
"""

from __future__ import annotations

import re
import resource
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import wait_for
from tests.packaging.conftest import ROOT, Package
from tests.packaging.images import Host, base, context

pytestmark = pytest.mark.root


class Engine(Host):
    """podman with a store of its own, in namespaces of its own."""

    def close(self) -> None:
        self("rm", "--force", "--all", check=False)
        super().close()
        shutil.rmtree(self.folder / "store", ignore_errors=True)

    def __call__(self, *arguments: str, check: bool = True, online: Path | None = None) -> str:
        places = ("--root", str(self.folder / "store"), "--runroot", str(self.folder / "run"))
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
    place = context(folder, package)
    engine = Engine(folder)
    try:
        engine("import", str(base()), "localhost/debian:12")
        build = documented("build")
        assert build[-1] == "."
        here = ("--isolation", "chroot", "--network", "host", "--build-arg", "BASE=localhost/debian:12")
        engine("build", *here, *build[:-1], str(place), online=place)
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
    once = [word for word in run if word not in {"--detach", "--name", "bridged"}]
    make = ("init", "--state", "/var/lib/bridged", "--remote", "vpn.example.net", "--bridge", "br0")
    output = ("--port", "eth1", "--output", "/etc/bridged/bridged.yaml")
    engine("run", "--rm", *limits, *once, "bridged", *make, *output)
    engine("run", *limits, *run)
    try:
        wait_for(
            lambda: "tunnel server" in engine("exec", "bridged", "bridged", "status", check=False), "it", 60
        )
        assert engine.ports() == {"eth1", "tap-server"}
        assert engine("exec", "bridged", "bridged", "reload") == "applied\n"
        engine("healthcheck", "run", "bridged")
        said = engine("logs", "bridged")
        assert "native" in said and '"level": "error"' not in said
    finally:
        engine("stop", "--time", "30", "bridged", check=False)
    assert engine("inspect", "bridged", "--format", "{{.State.ExitCode}}").strip() == "0"
    assert "br0" not in engine.inside("ip", "-brief", "link")
